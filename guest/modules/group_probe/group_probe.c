// SPDX-License-Identifier: GPL-2.0-only
/*
 * Lets a test call iommu_device_group(): write the name of a PCI device to the
 * module's parameter "device", and read there what the call returned and what it
 * left in the number, which was NOTHING_WRITTEN before.
 *
 * And lets it hold a group: write the name of a device to "hold", and its group
 * exists until "none" is written there.
 */
#include <linux/init.h>
#include <linux/iommu.h>
#include <linux/module.h>
#include <linux/pci.h>

#define NOTHING_WRITTEN 4294967295U

static unsigned int groupid = NOTHING_WRITTEN;
static int ret;

static struct iommu_group *held;

static struct pci_dev *get_device_named(const char *name)
{
	unsigned int domain, bus, slot, function;

	if (sscanf(name, "%x:%x:%x.%x", &domain, &bus, &slot, &function) != 4)
		return NULL;
	return pci_get_domain_bus_and_slot(domain, bus,
					   PCI_DEVFN(slot, function));
}

static int device_set(const char *name, const struct kernel_param *param)
{
	struct pci_dev *pdev = get_device_named(name);

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

static int hold_set(const char *name, const struct kernel_param *param)
{
	struct pci_dev *pdev = get_device_named(name);

	if (held)
		iommu_group_put(held);
	held = pdev ? iommu_group_get(&pdev->dev) : NULL;
	pci_dev_put(pdev);
	return 0;
}

static const struct kernel_param_ops hold_ops = {
	.set = hold_set,
};

module_param_cb(hold, &hold_ops, NULL, 0200);
MODULE_PARM_DESC(hold, "PCI device whose group is held");

static int __init group_probe_init(void)
{
	return 0;
}
module_init(group_probe_init);

static void __exit group_probe_exit(void)
{
	if (held)
		iommu_group_put(held);
}
module_exit(group_probe_exit);

MODULE_DESCRIPTION("Calls iommu_device_group() for a test");
MODULE_LICENSE("GPL");
