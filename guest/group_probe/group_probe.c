// SPDX-License-Identifier: GPL-2.0
/*
 * Lets a test call iommu_device_group(): write the name of a PCI device to the
 * module's parameter "device", and read there what the call returned and what it
 * left in the number, which was NOTHING_WRITTEN before.
 */
#include <linux/init.h>
#include <linux/iommu.h>
#include <linux/module.h>
#include <linux/pci.h>

#define NOTHING_WRITTEN 4294967295U

static unsigned int groupid = NOTHING_WRITTEN;
static int ret;

static int device_set(const char *name, const struct kernel_param *param)
{
	unsigned int domain, bus, slot, function;
	struct pci_dev *pdev;

	if (sscanf(name, "%x:%x:%x.%x", &domain, &bus, &slot, &function) != 4)
		return -EINVAL;
	pdev = pci_get_domain_bus_and_slot(domain, bus,
					   PCI_DEVFN(slot, function));
	if (!pdev)
		return -ENXIO;
	groupid = NOTHING_WRITTEN;
	ret = iommu_device_group(&pdev->dev, &groupid);
	pci_dev_put(pdev);
	return 0;
}

static int device_get(char *buffer, const struct kernel_param *param)
{
	return sysfs_emit(buffer, "%d %u\n", ret, groupid);
}

static const struct kernel_param_ops device_ops = {
	.set = device_set,
	.get = device_get,
};

module_param_cb(device, &device_ops, NULL, 0600);
MODULE_PARM_DESC(device, "PCI device whose group is asked for");

static int __init group_probe_init(void)
{
	return 0;
}
module_init(group_probe_init);

static void __exit group_probe_exit(void)
{
}
module_exit(group_probe_exit);

MODULE_DESCRIPTION("Calls iommu_device_group() for a test");
MODULE_LICENSE("GPL");
