// SPDX-License-Identifier: GPL-2.0-only
/*
 * Prints 32 bits of a PCI device's first memory, as the processor reads them
 * there, or writes them. All ones come back where nothing answers.
 *
 *   pci-peek 0000:03:00.0			the first ones
 *   pci-peek 0000:03:00.0 OFFSET
 *   pci-peek 0000:03:00.0 OFFSET VALUE ...	writes, each after the other
 */
#include <err.h>
#include <fcntl.h>
#include <linux/types.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

static void *map(const char *device)
{
	char path[64];
	void *memory;
	int fd;

	snprintf(path, sizeof(path), "/sys/bus/pci/devices/%s/resource0",
		 device);
	fd = open(path, O_RDWR | O_SYNC);
	if (fd < 0)
		err(1, "%s", path);
	memory = mmap(NULL, sysconf(_SC_PAGESIZE), PROT_READ | PROT_WRITE,
		      MAP_SHARED, fd, 0);
	if (memory == MAP_FAILED)
		err(1, "%s", path);
	return memory;
}

static __u32 *at(void *memory, const char *offset)
{
	return memory + strtoul(offset, NULL, 0) % sysconf(_SC_PAGESIZE);
}

int main(int argc, char **argv)
{
	void *memory;

	if (argc < 2 || (argc > 3 && argc % 2))
		errx(2, "usage: pci-peek DEVICE [OFFSET [VALUE [OFFSET VALUE]...]]");
	memory = map(argv[1]);
	if (argc <= 3) {
		printf("%08x\n", __atomic_load_n(at(memory, argc > 2 ? argv[2] : "0"),
						 __ATOMIC_RELAXED));
		return 0;
	}
	for (int i = 2; i < argc; i += 2)
		__atomic_store_n(at(memory, argv[i]), strtoul(argv[i + 1], NULL, 0),
				 __ATOMIC_RELAXED);
	return 0;
}
