// SPDX-License-Identifier: GPL-2.0-only
/*
 * What PCI grouping costs: instructions for a call of pci_device_group(), by
 * number of Functions, by how they are spread over buses, and by whether they
 * isolate; what it takes to own a group, and to read what shows the groups; and
 * the memory. Printed when the module is loaded.
 *
 * The machines are those of the KUnit tests of PCI grouping. The clock is the time
 * stamp counter, which counts instructions when QEMU runs with "-icount
 * shift=0,sleep=off": so the numbers are the same on every run, whatever machine
 * it is on.
 */
#include <linux/file.h>
#include <linux/fs.h>
#include <linux/iommu.h>
#include <linux/module.h>
#include <linux/mount.h>
#include <linux/rcupdate.h>
#include <linux/slab.h>
#include <linux/timex.h>
#include <linux/vmalloc.h>
#include <linux/vmstat.h>

#include "pci_group_kunit.h"

/* As many Functions as fit on the root bus of a host bridge */
#define FUNCTIONS_PER_HOST	256

/* How often a group is owned */
#define OWNED			64

static unsigned int calls = UINT_MAX;
module_param(calls, uint, 0400);
MODULE_PARM_DESC(calls, "Of more Functions than this, not all are grouped");

static char *own;
module_param(own, charp, 0400);
MODULE_PARM_DESC(own, "Of no machine but this one: what it takes to own this device's group");

static const struct layout {
	const char *name;
	/* Root Ports of a host bridge, each with a device of eight Functions */
	unsigned int ports;
} layouts[] = {
	{ "on root buses" },
	{ "below Root Ports", .ports = 28 },
};

static const unsigned int sizes[] = { 16, 256, 1024, 4096, 16384 };

static struct kunit_suite suite;

static u64 group_cycles;
static unsigned int groups;

static int is_any(struct device *dev, void *data)
{
	return 1;
}

static struct iommu_group *timed_device_group(struct device *dev)
{
	cycles_t start = get_cycles();
	struct iommu_group *group = pci_device_group(dev);

	group_cycles += get_cycles() - start;
	if (!IS_ERR(group) && !iommu_group_for_each_dev(group, NULL, is_any))
		groups++;

	return group;
}

/*
 * Bytes in whole pages, so that only many objects can be seen. Destroying a cache
 * waits for kvfree_rcu(); 7.3 does not export the function that only does that.
 */
static unsigned long slab_bytes(void)
{
	kmem_cache_destroy(kmem_cache_create("bench", 8, 0, 0, NULL));
	rcu_barrier();

	return (global_node_page_state_pages(NR_SLAB_UNRECLAIMABLE_B) +
		global_node_page_state_pages(NR_SLAB_RECLAIMABLE_B)) * PAGE_SIZE;
}

static void describe(struct seq_buf *text, const struct layout *layout,
		     unsigned int functions, bool acs)
{
	const char *end = acs ? " acs\n" : "\n";
	unsigned int host, i, j;

	for (host = 0; functions; host++) {
		unsigned int here = min(functions, FUNCTIONS_PER_HOST);

		functions -= here;
		seq_buf_printf(text, "segment %x\n", 0x100 + host);
		if (!layout->ports) {
			for (i = 0; i < here; i++)
				seq_buf_printf(text, "00:%02x.%x rc-endpoint%s",
					       PCI_SLOT(i), PCI_FUNC(i), end);
			continue;
		}

		for (i = 0; i < layout->ports && here; i++) {
			seq_buf_printf(text, "00:%02x.0 root-port [%02x]%s", i,
				       i + 1, end);
			here--;
			for (j = 0; j < 8 && here; j++, here--)
				seq_buf_printf(text, "%02x:00.%x endpoint%s",
					       i + 1, j, end);
		}
	}
}

static struct pgt_topo *make(const struct layout *layout, unsigned int functions,
			     bool acs, bool probe)
{
	size_t size = functions * 48 + 4096;
	char *description = kvzalloc(size, GFP_KERNEL);
	struct pgt_topo *topo = ERR_PTR(-ENOMEM);
	struct seq_buf text;
	int ret;

	if (!description)
		return topo;
	seq_buf_init(&text, description, size);
	describe(&text, layout, functions, acs);
	topo = pgt_topo_alloc(seq_buf_str(&text), functions, &text);
	if (!IS_ERR(topo)) {
		ret = pgt_register(topo, probe);
		if (ret) {
			pgt_topo_free(topo);
			topo = ERR_PTR(ret);
		}
	}
	kvfree(description);

	return topo;
}

static void drop(struct pgt_topo *topo)
{
	pgt_unregister(topo);
	pgt_topo_free(topo);
}

/* The instructions to read a file of sysfs, from open() to close() */
static u64 read_file(struct vfsmount *mnt, const char *path)
{
	cycles_t start = get_cycles();
	struct path root = { .mnt = mnt, .dentry = mnt->mnt_root };
	char buf[64];
	struct file *file;
	loff_t pos = 0;

	file = file_open_root(&root, path, O_RDONLY, 0);
	if (IS_ERR(file))
		return U64_MAX;
	kernel_read(file, buf, sizeof(buf), &pos);
	fput(file);

	return get_cycles() - start;
}

static void measure_files(struct pgt_topo *topo)
{
	static const char * const files[] = {
		"iommu_group/id", "iommu_group_reason",
	};
	struct vfsmount *mnt = kern_mount(get_fs_type("sysfs"));
	unsigned int i, j;

	if (IS_ERR(mnt))
		return;
	for (i = 0; i < ARRAY_SIZE(files); i++) {
		u64 least = U64_MAX;

		for (j = 0; j < 8; j++) {
			struct pgt_fn *fn = &topo->fns[topo->nr_fns - 1 - j];
			char path[80];

			snprintf(path, sizeof(path), "bus/pci/devices/%s/%s",
				 pci_name(fn->pdev), files[i]);
			least = min(least, read_file(mnt, path));
		}
		if (least != U64_MAX)
			pr_notice("bench: read %s: %llu\n", files[i], least);
	}
	kern_unmount(mnt);
}

static int measure_grouping(const struct layout *layout, unsigned int functions,
			    bool acs)
{
	struct pgt_topo *topo = make(layout, functions, acs, false);
	unsigned int i, stride, made = 0;
	unsigned long slab;
	int ret = 0;

	if (IS_ERR(topo))
		return PTR_ERR(topo);

	/* Whole devices of up to eight Functions, spread over the machine */
	stride = DIV_ROUND_UP(functions, min(functions, calls));
	slab = slab_bytes();
	group_cycles = 0;
	groups = 0;
	for (i = 0; i < topo->nr_fns && !ret; i++) {
		if (i / 9 % stride)
			continue;
		ret = pgt_probe(&topo->fns[i]);
		made++;
		cond_resched();
	}
	pr_notice("bench: %s, %s, %u functions: %llu instructions a call, %u calls, %u groups, %lu bytes a call\n",
		  layout->name, acs ? "isolated" : "not isolated", functions,
		  div_u64(group_cycles, made), made, groups,
		  (slab_bytes() - slab) / made);
	if (functions == 4096 && acs && !layout->ports)
		measure_files(topo);
	drop(topo);

	return ret;
}

/* The least that a device in a group of its own can cost */
static int measure_floor(void)
{
	static struct iommu_group *made[1024];
	cycles_t start = get_cycles(), end;
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(made); i++) {
		made[i] = iommu_group_alloc();
		if (IS_ERR(made[i]))
			return PTR_ERR(made[i]);
	}
	end = get_cycles();
	for (i = 0; i < ARRAY_SIZE(made); i++)
		iommu_group_put(made[i]);
	pr_notice("bench: floor: %llu instructions to allocate a group, %llu to free it\n",
		  (end - start) / ARRAY_SIZE(made),
		  (get_cycles() - end) / ARRAY_SIZE(made));

	return 0;
}

/* What it takes to own a group, and to let go of it */
static int measure_owning(void)
{
	struct device *dev = bus_find_device_by_name(&pci_bus_type, NULL, own);
	struct iommu_group *group = dev ? iommu_group_get(dev) : NULL;
	cycles_t claim = 0, release = 0, start, end;
	unsigned int i;
	int ret = -ENODEV;

	put_device(dev);
	if (!group)
		return ret;

	/* The first may make a domain, which the group keeps */
	for (i = 0; i <= OWNED; i++) {
		start = get_cycles();
		ret = iommu_group_claim_dma_owner(group, &own);
		end = get_cycles();
		if (ret)
			break;
		iommu_group_release_dma_owner(group);
		if (i) {
			release += get_cycles() - end;
			claim += end - start;
		}
	}
	iommu_group_put(group);
	pr_notice("bench: %llu instructions to claim a group, %llu to release it\n",
		  div_u64(claim, OWNED), div_u64(release, OWNED));

	return ret;
}

static int __init bench_init(void)
{
	unsigned int i, j;
	int ret;

	if (own)
		return measure_owning();

	ret = pgt_suite_init(&suite);
	if (ret)
		return ret;

	pgt_device_group = timed_device_group;
	ret = measure_floor();
	for (i = 0; i < ARRAY_SIZE(layouts); i++)
		for (j = 0; j < ARRAY_SIZE(sizes) && !ret; j++)
			ret = measure_grouping(&layouts[i], sizes[j], true) ?:
			      measure_grouping(&layouts[i], sizes[j], false);
	pgt_device_group = pci_device_group;
	pgt_suite_exit(&suite);

	return ret;
}
module_init(bench_init);

static void __exit bench_exit(void)
{
}
module_exit(bench_exit);

MODULE_DESCRIPTION("What PCI grouping costs");
MODULE_LICENSE("GPL");
/* As MODULE_IMPORT_NS(), of which the argument became a string */
MODULE_INFO(import_ns, "EXPORTED_FOR_KUNIT_TESTING");
