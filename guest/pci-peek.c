// SPDX-License-Identifier: GPL-2.0
/*
 * Prints the first 32 bits of a PCI device's first memory, as the processor reads
 * them there. All ones come back where nothing answers.
 *
 *   pci-peek 0000:03:00.0
 */
#include <err.h>
#include <fcntl.h>
#include <linux/types.h>
#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

int main(int argc, char **argv)
{
	__u32 *memory;
	char path[64];
	int fd;

	if (argc != 2)
		errx(2, "usage: pci-peek DEVICE");
	snprintf(path, sizeof(path), "/sys/bus/pci/devices/%s/resource0",
		 argv[1]);
	fd = open(path, O_RDWR | O_SYNC);
	if (fd < 0)
		err(1, "%s", path);
	memory = mmap(NULL, sysconf(_SC_PAGESIZE), PROT_READ, MAP_SHARED, fd, 0);
	if (memory == MAP_FAILED)
		err(1, "%s", path);
	printf("%08x\n", __atomic_load_n(memory, __ATOMIC_RELAXED));
	return 0;
}
