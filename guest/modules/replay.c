// SPDX-License-Identifier: GPL-2.0-only
/*
 * Brings a machine to life that is somewhere else, so that its groups can be
 * read in sysfs as there: write the name of a file to the module's parameter
 * "topology", with a description of the machine as the KUnit tests of PCI grouping
 * have it, and "none" to take the machine away again. Where that fails, reading
 * the parameter gives why.
 *
 * By default the IOMMU arrives once all devices are there, as at boot. With the
 * parameter "hotadd" it is there before them. With a "seed" other than 0 they then
 * come one slot after the other, in an order that the seed decides.
 */
#include <linux/kernel_read_file.h>
#include <linux/module.h>
#include <linux/pci.h>
#include <linux/prandom.h>
#include <linux/seq_buf.h>
#include <linux/vmalloc.h>

#include "pci_group_kunit.h"

#define MAX_TEXT	(1024 * 1024)
#define MAX_FNS		0x10000		/* Requester IDs of a segment */

static bool hotadd;
module_param(hotadd, bool, 0600);
MODULE_PARM_DESC(hotadd, "The IOMMU is there before the devices");

static uint seed;
module_param(seed, uint, 0600);
MODULE_PARM_DESC(seed, "Devices come in an order that this decides");

static struct kunit_suite suite;
static struct pgt_topo *topo;
static char *text;

static char why_buf[256];
static struct seq_buf why;

/* Is @fn, or one below it, the one that does the DMA of a host bridge? */
static bool does_dma_of_a_host(const struct pgt_fn *fn)
{
	const struct pgt_fn *up;
	int i;

	for (i = 0; i < topo->nr_hosts; i++) {
		for (up = topo->hosts[i].dma_fn; up; up = up->parent) {
			if (up == fn)
				return true;
		}
	}

	return false;
}

/* Do they come and go together? Below a port of PCI Express there is one slot. */
static bool same_slot(const struct pgt_fn *a, const struct pgt_fn *b)
{
	if (a->host != b->host || a->parent != b->parent || a->bus != b->bus)
		return false;
	if (a->parent && (a->parent->type == PGT_ROOT_PORT ||
			  a->parent->type == PGT_DOWNSTREAM))
		return true;

	return PCI_SLOT(a->devfn) == PCI_SLOT(b->devfn);
}

static void set_slot_absent(const struct pgt_fn *in, bool absent)
{
	struct pgt_fn *fn;

	for (fn = topo->fns; fn < pgt_end(topo); fn++) {
		if (!fn->pf && same_slot(fn, in))
			fn->absent = absent;
	}
}

/* What is in a slot below one that is absent comes with that one */
static int plug_by_seed(void)
{
	unsigned int i, other, nr = 0;
	struct pgt_fn **order, *fn;
	struct rnd_state rnd;
	int ret;

	order = kvcalloc(topo->nr_fns, sizeof(*order), GFP_KERNEL);
	if (!order)
		return -ENOMEM;

	for (fn = topo->fns; fn < pgt_end(topo); fn++) {
		if (!fn->pf)
			fn->absent = true;
	}
	for (fn = topo->fns; fn < pgt_end(topo); fn++) {
		if (does_dma_of_a_host(fn))
			set_slot_absent(fn, false);
	}

	ret = pgt_register(topo, true);
	if (ret)
		goto free_order;

	prandom_seed_state(&rnd, seed);
	for (fn = topo->fns; fn < pgt_end(topo); fn++) {
		if (fn->pf)
			continue;
		order[nr] = fn;
		other = prandom_u32_state(&rnd) % ++nr;
		swap(order[other], order[nr - 1]);
	}
	for (i = 0; i < nr && !ret; i++) {
		if (!order[i]->absent)
			continue;
		set_slot_absent(order[i], false);
		ret = pgt_plug(order[i]);
	}
	if (ret)
		pgt_unregister(topo);

free_order:
	kvfree(order);
	return ret;
}

static int bring_to_life(void)
{
	int ret;

	if (hotadd)
		return seed ? plug_by_seed() : pgt_register(topo, true);

	ret = pgt_register(topo, false);
	if (ret)
		return ret;
	ret = pgt_probe_at_once(topo);
	if (ret)
		pgt_unregister(topo);

	return ret;
}

static void take_away(void)
{
	if (!topo)
		return;

	pgt_unregister(topo);
	pgt_topo_free(topo);
	topo = NULL;
}

static int replay(const char *path)
{
	struct pgt_topo *found;
	void *to = text;
	ssize_t size;
	int ret;

	size = kernel_read_file_from_path(path, 0, &to, MAX_TEXT - 1, NULL,
					  READING_UNKNOWN);
	if (size < 0) {
		seq_buf_printf(&why, "error %zd in reading %s", size, path);
		return size;
	}
	text[size] = '\0';

	found = pgt_topo_alloc(text, MAX_FNS, &why);
	if (IS_ERR(found))
		return PTR_ERR(found);

	topo = found;
	topo->as_booted = true;
	ret = bring_to_life();
	if (ret) {
		seq_buf_printf(&why, "error %d from the PCI core or the IOMMU core",
			       ret);
		pgt_topo_free(topo);
		topo = NULL;
	}

	return ret;
}

static int topology_set(const char *value, const struct kernel_param *param)
{
	char *path;
	int ret;

	take_away();
	seq_buf_init(&why, why_buf, sizeof(why_buf));
	if (sysfs_streq(value, "none"))
		return 0;

	path = kstrdup(value, GFP_KERNEL);
	if (!path)
		return -ENOMEM;
	ret = replay(strim(path));
	kfree(path);

	return ret;
}

static int topology_get(char *buffer, const struct kernel_param *param)
{
	return sysfs_emit(buffer, "%s\n", seq_buf_str(&why));
}

static const struct kernel_param_ops topology_ops = {
	.set = topology_set,
	.get = topology_get,
};

module_param_cb(topology, &topology_ops, NULL, 0600);
MODULE_PARM_DESC(topology, "File with the description of a machine");

static int __init replay_init(void)
{
	int ret;

	seq_buf_init(&why, why_buf, sizeof(why_buf));
	text = vmalloc(MAX_TEXT);
	if (!text)
		return -ENOMEM;
	ret = pgt_suite_init(&suite);
	if (ret)
		vfree(text);

	return ret;
}
module_init(replay_init);

static void __exit replay_exit(void)
{
	take_away();
	pgt_suite_exit(&suite);
	vfree(text);
}
module_exit(replay_exit);

MODULE_DESCRIPTION("Brings a machine to life that is somewhere else");
MODULE_LICENSE("GPL");
/* As MODULE_IMPORT_NS(), of which the argument became a string */
MODULE_INFO(import_ns, "EXPORTED_FOR_KUNIT_TESTING");
