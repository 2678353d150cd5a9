// SPDX-License-Identifier: GPL-2.0-only
/*
 * Calls iommu_device_group() on many threads while a test lets devices come and
 * go, from insmod to rmmod. Then it says in the log how many calls there were,
 * and what they gave.
 *
 * A device is looked up by its address, again and again. What was found is kept
 * for a while, so that devices which are removed meanwhile are asked for, too.
 *
 * No PCI device loses its group often enough for a call to meet the moment when
 * the group is freed. So there is a device of the module's own besides, which
 * does nothing else.
 */
#include <linux/delay.h>
#include <linux/init.h>
#include <linux/iommu.h>
#include <linux/kthread.h>
#include <linux/module.h>
#include <linux/pci.h>

#define NR_THREADS	8
#define MAX_DEVICES	48
/* How often a thread asks for what it found, and with how long between */
#define NR_ROUNDS	20
#define ROUND_US	10000
/* And each time this often for the device of the module */
#define NR_CALLS	200

/* No Requester ID, and no number of a group */
#define UNTOUCHED	UINT_MAX

static char *devices;
module_param(devices, charp, 0);
MODULE_PARM_DESC(devices, "PCI devices and the numbers of their groups: 0000:00:03.0=24,...");

static struct {
	unsigned int domain, bus, devfn;
	unsigned int number;
} wanted[MAX_DEVICES];
static unsigned int nr_wanted;

static struct device *own;
static unsigned int own_number;
static struct task_struct *own_task;
static unsigned long regrouped;

static struct asker {
	struct task_struct *task;
	unsigned long right;	/* the number of the device's group */
	unsigned long none;	/* -ENODEV, the number untouched */
	unsigned long gone;	/* the same, for a device that was removed */
	unsigned long wrong;	/* anything else */
} askers[NR_THREADS];

static int parse_devices(void)
{
	unsigned int slot, function;
	char *device;

	while ((device = strsep(&devices, ","))) {
		if (nr_wanted == MAX_DEVICES ||
		    sscanf(device, "%x:%x:%x.%x=%u", &wanted[nr_wanted].domain,
			   &wanted[nr_wanted].bus, &slot, &function,
			   &wanted[nr_wanted].number) != 5)
			return -EINVAL;
		wanted[nr_wanted++].devfn = PCI_DEVFN(slot, function);
	}
	return 0;
}

static void ask(struct asker *asker, struct device *dev, unsigned int number)
{
	/* A device that is not there any more has lost its group before that */
	bool gone = !device_is_registered(dev);
	unsigned int answer = UNTOUCHED;
	int ret;

	ret = iommu_device_group(dev, &answer);
	if (ret == -ENODEV && answer == UNTOUCHED) {
		asker->none++;
		asker->gone += gone;
	} else if (!ret && answer == number && !gone) {
		asker->right++;
	} else if (!asker->wrong++) {
		dev_err(dev, "group_threads: wrong: %d and %u, not %u%s\n", ret,
			answer, number, gone ? ", though it is gone" : "");
	}
}

static int ask_on(void *data)
{
	struct pci_dev *found[MAX_DEVICES];
	struct asker *asker = data;
	unsigned int i, round;

	/* Preempted by all that regroups, at any moment of a call */
	set_user_nice(current, MAX_NICE);
	while (!kthread_should_stop()) {
		for (i = 0; i < nr_wanted; i++)
			found[i] = pci_get_domain_bus_and_slot(wanted[i].domain,
							       wanted[i].bus,
							       wanted[i].devfn);
		for (round = 0; round < NR_ROUNDS; round++) {
			for (i = 0; i < nr_wanted; i++)
				if (found[i])
					ask(asker, &found[i]->dev,
					    wanted[i].number);
			for (i = 0; i < NR_CALLS; i++)
				ask(asker, own, own_number);
			usleep_range(ROUND_US, 2 * ROUND_US);
		}
		for (i = 0; i < nr_wanted; i++)
			pci_dev_put(found[i]);
	}
	return 0;
}

static int group_own(void)
{
	struct iommu_group *group = iommu_group_alloc();
	int ret;

	if (IS_ERR(group))
		return PTR_ERR(group);
	ret = iommu_group_add_device(group, own);
	iommu_group_put(group);
	return ret;
}

/* Each time the group is freed, and a new one has the same number again */
static int regroup_on(void *unused)
{
	while (!kthread_should_stop()) {
		iommu_group_remove_device(own);
		WARN_ON_ONCE(group_own());
		regrouped++;
		usleep_range(2000, 3000);
	}
	return 0;
}

static void group_threads_exit(void)
{
	struct asker sum = {};
	unsigned int i;

	for (i = 0; i < NR_THREADS && askers[i].task; i++) {
		kthread_stop(askers[i].task);
		sum.right += askers[i].right;
		sum.none += askers[i].none;
		sum.gone += askers[i].gone;
		sum.wrong += askers[i].wrong;
	}
	if (own_task)
		kthread_stop(own_task);
	iommu_group_remove_device(own);
	root_device_unregister(own);
	pr_info("group_threads: %lu right, %lu none, %lu gone, %lu wrong, regrouped %lu times\n",
		sum.right, sum.none, sum.gone, sum.wrong, regrouped);
}
module_exit(group_threads_exit);

static int __init group_threads_init(void)
{
	struct task_struct *task;
	unsigned int i;
	int ret;

	ret = parse_devices();
	if (ret)
		return ret;

	own = root_device_register("group_threads");
	if (IS_ERR(own))
		return PTR_ERR(own);
	ret = group_own();
	if (ret) {
		root_device_unregister(own);
		return ret;
	}
	iommu_device_group(own, &own_number);

	task = kthread_run(regroup_on, NULL, "group_threads");
	if (IS_ERR(task))
		goto err_exit;
	own_task = task;
	for (i = 0; i < NR_THREADS; i++) {
		task = kthread_run(ask_on, &askers[i], "group_threads/%u", i);
		if (IS_ERR(task))
			goto err_exit;
		askers[i].task = task;
	}
	return 0;

err_exit:
	group_threads_exit();
	return PTR_ERR(task);
}
module_init(group_threads_init);

MODULE_DESCRIPTION("Calls iommu_device_group() on many threads for a test");
MODULE_LICENSE("GPL");
