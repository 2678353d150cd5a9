// SPDX-License-Identifier: GPL-2.0
/*
 * Tries to own devices as a userspace driver does, and says how that went:
 *
 *   vfio-claim group NUMBER ...   puts the groups into one container each
 *   vfio-claim device NAME ...    binds /dev/vfio/devices/NAME to iommufd
 *
 * A line for each, with 0 or the errno. With "hold" as the first argument it
 * then keeps what it has got until it is killed.
 */
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/vfio.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

static int open_node(const char *directory, const char *name)
{
	char path[64];
	int fd;

	snprintf(path, sizeof(path), "%s/%s", directory, name);
	fd = open(path, O_RDWR | O_CLOEXEC);
	if (fd < 0)
		err(1, "%s", path);
	return fd;
}

static int claim_group(const char *number)
{
	int container = open_node("/dev/vfio", "vfio");
	int group = open_node("/dev/vfio", number);

	if (ioctl(group, VFIO_GROUP_SET_CONTAINER, &container))
		return errno;
	return 0;
}

static int claim_device(const char *name)
{
	struct vfio_device_bind_iommufd bind = { .argsz = sizeof(bind) };
	int device = open_node("/dev/vfio/devices", name);

	bind.iommufd = open_node("/dev", "iommu");
	if (ioctl(device, VFIO_DEVICE_BIND_IOMMUFD, &bind))
		return errno;
	return 0;
}

int main(int argc, char **argv)
{
	int (*claim)(const char *name);
	int hold;

	hold = argc > 1 && !strcmp(argv[1], "hold");
	argc -= 1 + hold;
	argv += 1 + hold;
	if (argc > 1 && !strcmp(argv[0], "group"))
		claim = claim_group;
	else if (argc > 1 && !strcmp(argv[0], "device"))
		claim = claim_device;
	else
		errx(2, "usage: vfio-claim [hold] group|device NAME ...");

	while (*++argv) {
		printf("%s %d\n", *argv, claim(*argv));
		fflush(stdout);
	}
	if (hold)
		pause();
	return 0;
}
