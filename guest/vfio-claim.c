// SPDX-License-Identifier: GPL-2.0-only
/*
 * Tries to own devices as a userspace driver does, and says how that went:
 *
 *   vfio-claim group NUMBER ...   puts the groups into one container each
 *   vfio-claim device NAME ...    binds each /dev/vfio/devices/NAME to an
 *                                 iommufd of its own
 *   vfio-claim viable NUMBER ...  asks if the groups are viable, EPERM if not
 *
 * One process may do all of it: after the word "group", "device" or "viable" come
 * names of that kind, till the next such word. After the word "together" all that
 * follows is put into one container, or bound to one iommufd.
 *
 * A line for each, with 0 or the errno. With "hold" as the first argument it
 * then keeps what it has got until it is killed.
 */
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/vfio.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

static bool together;

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

/* A new container or iommufd, or the one that all others have */
static int open_owner(const char *directory, const char *name, int *shared)
{
	if (!together)
		return open_node(directory, name);
	if (*shared < 0)
		*shared = open_node(directory, name);
	return *shared;
}

static int claim_group(const char *number)
{
	static int shared = -1;
	int container = open_owner("/dev/vfio", "vfio", &shared);
	int group = open_node("/dev/vfio", number);

	if (ioctl(group, VFIO_GROUP_SET_CONTAINER, &container))
		return errno;
	return 0;
}

static int claim_device(const char *name)
{
	struct vfio_device_bind_iommufd bind = { .argsz = sizeof(bind) };
	static int shared = -1;
	int device = open_node("/dev/vfio/devices", name);

	bind.iommufd = open_owner("/dev", "iommu", &shared);
	if (ioctl(device, VFIO_DEVICE_BIND_IOMMUFD, &bind))
		return errno;
	return 0;
}

static int is_viable(const char *number)
{
	struct vfio_group_status status = { .argsz = sizeof(status) };

	if (ioctl(open_node("/dev/vfio", number), VFIO_GROUP_GET_STATUS, &status))
		return errno;
	return status.flags & VFIO_GROUP_FLAGS_VIABLE ? 0 : EPERM;
}

int main(int argc, char **argv)
{
	int (*claim)(const char *name) = NULL;
	bool hold;

	hold = argc > 1 && !strcmp(argv[1], "hold");
	argv += hold;
	while (*++argv) {
		if (!strcmp(*argv, "together")) {
			together = true;
		} else if (!strcmp(*argv, "group")) {
			claim = claim_group;
		} else if (!strcmp(*argv, "device")) {
			claim = claim_device;
		} else if (!strcmp(*argv, "viable")) {
			claim = is_viable;
		} else if (claim) {
			printf("%s %d\n", *argv, claim(*argv));
			fflush(stdout);
		} else {
			break;
		}
	}
	if (!claim)
		errx(2, "usage: vfio-claim [hold] [together] group|device|viable NAME ...");
	if (hold)
		pause();
	return 0;
}
