// SPDX-License-Identifier: GPL-2.0-only
/*
 * Holds locks from its loading till it is removed, so that a test can see who
 * waits for them: those of the PCI "devices", the mutex of the first one's group,
 * and the "mutexes" at these addresses, taken in this order.
 */
#include <linux/completion.h>
#include <linux/iommu.h>
#include <linux/kthread.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/pci.h>

#define MAX_DEVICES	64
#define MAX_MUTEXES	8

static char *devices[MAX_DEVICES];
static unsigned int nr_devices;
module_param_array(devices, charp, &nr_devices, 0);
MODULE_PARM_DESC(devices, "PCI devices whose locks are held");

static unsigned long mutexes[MAX_MUTEXES];
static unsigned int nr_mutexes;
module_param_array(mutexes, ulong, &nr_mutexes, 0);
MODULE_PARM_DESC(mutexes, "Addresses of mutexes that are held");

static struct pci_dev *pdevs[MAX_DEVICES];
static struct iommu_group *group;
static struct task_struct *holder;
static DECLARE_COMPLETION(held);
static DECLARE_COMPLETION(enough);

/* Called for the first device of the group, under the group's mutex */
static int hold_mutexes(struct device *dev, void *data)
{
	int i;

	for (i = 0; i < nr_mutexes; i++)
		mutex_lock((struct mutex *)mutexes[i]);
	complete(&held);
	wait_for_completion(&enough);
	while (i--)
		mutex_unlock((struct mutex *)mutexes[i]);

	return 1;
}

static int hold(void *data)
{
	int i;

	for (i = 0; i < nr_devices; i++)
		device_lock(&pdevs[i]->dev);
	iommu_group_for_each_dev(group, NULL, hold_mutexes);
	while (i--)
		device_unlock(&pdevs[i]->dev);

	return 0;
}

static void put_all(void)
{
	int i;

	iommu_group_put(group);
	for (i = 0; i < nr_devices; i++)
		pci_dev_put(pdevs[i]);
}

static int __init hold_locks_init(void)
{
	unsigned int domain, bus, slot, function;
	int i, ret = -ENODEV;

	for (i = 0; i < nr_devices; i++) {
		if (sscanf(devices[i], "%x:%x:%x.%x", &domain, &bus, &slot,
			   &function) != 4)
			goto err_put;
		pdevs[i] = pci_get_domain_bus_and_slot(domain, bus,
						       PCI_DEVFN(slot, function));
		if (!pdevs[i])
			goto err_put;
	}
	group = pdevs[0] ? iommu_group_get(&pdevs[0]->dev) : NULL;
	if (!group)
		goto err_put;

	holder = kthread_create(hold, NULL, "hold_locks");
	ret = PTR_ERR_OR_ZERO(holder);
	if (ret)
		goto err_put;
	get_task_struct(holder);
	wake_up_process(holder);
	wait_for_completion(&held);

	return 0;

err_put:
	put_all();
	return ret;
}
module_init(hold_locks_init);

static void __exit hold_locks_exit(void)
{
	complete(&enough);
	kthread_stop_put(holder);
	put_all();
}
module_exit(hold_locks_exit);

MODULE_DESCRIPTION("Holds locks for a test");
MODULE_LICENSE("GPL");
