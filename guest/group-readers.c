// SPDX-License-Identifier: GPL-2.0-only
/*
 * Reads what sysfs says of IOMMU groups, over and over until SIGTERM, while a
 * test lets devices come and go.
 *
 * The devices that are there at the start, and the numbers of their groups, are
 * what is right: whatever says anything else at any time is written out. At the
 * end comes a line with how many reads succeeded, how many found nothing there,
 * and how many were wrong.
 */
#include <dirent.h>
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define DEVICES "/sys/bus/pci/devices"
#define GROUPS "/sys/kernel/iommu_groups"
#define MAX_DEVICES 64

static struct {
	char *name;
	int number;
} expected[MAX_DEVICES];
static int nr_expected;

static unsigned long reads, absent, wrong;

static void complain(const char *path, const char *said)
{
	wrong++;
	printf("%s: %s\n", path, said);
}

/* A device or group that goes away takes its files with it, at any moment. */
static void count_error(const char *path)
{
	if (errno == ENOENT || errno == ENODEV)
		absent++;
	else
		complain(path, strerror(errno));
}

/* Reads a file of one line, without its end. */
static int read_line(const char *path, char *line, size_t size)
{
	ssize_t length = -1;
	int fd, saved;

	fd = open(path, O_RDONLY);
	if (fd >= 0) {
		length = read(fd, line, size - 1);
		saved = errno;
		close(fd);
		errno = saved;
	}
	if (length < 0) {
		count_error(path);
		return -1;
	}
	reads++;
	line[length] = '\0';
	if (!length || line[length - 1] != '\n') {
		complain(path, line);
		return -1;
	}
	line[length - 1] = '\0';
	return 0;
}

static void check_id(const char *path, int number)
{
	char line[64];

	if (!read_line(path, line, sizeof(line)) && atoi(line) != number)
		complain(path, line);
}

static void check_reason(const char *device)
{
	static const char *const words[] = { "base", "alias ", "path ",
					     "function ", "group_mf " };
	char path[PATH_MAX], line[64];
	size_t i;

	snprintf(path, sizeof(path), DEVICES "/%s/iommu_group_reason", device);
	if (read_line(path, line, sizeof(line)))
		return;
	for (i = 0; i < sizeof(words) / sizeof(*words); i++)
		if (!strncmp(line, words[i], strlen(words[i])))
			return;
	complain(path, line);
}

static void check_member(const char *path, const char *device, int number)
{
	int i;

	for (i = 0; i < nr_expected; i++)
		if (!strcmp(expected[i].name, device) &&
		    expected[i].number != number)
			complain(path, device);
}

static void check_members(const char *path, int number)
{
	DIR *members = opendir(path);
	struct dirent *entry;

	if (!members) {
		count_error(path);
		return;
	}
	reads++;
	while ((entry = readdir(members)))
		if (entry->d_name[0] != '.')
			check_member(path, entry->d_name, number);
	closedir(members);
}

static void check_groups(void)
{
	DIR *groups = opendir(GROUPS);
	struct dirent *entry;
	char path[PATH_MAX];
	int number;

	if (!groups)
		err(1, GROUPS);
	reads++;
	while ((entry = readdir(groups))) {
		if (entry->d_name[0] == '.')
			continue;
		number = atoi(entry->d_name);
		snprintf(path, sizeof(path), GROUPS "/%s/id", entry->d_name);
		check_id(path, number);
		snprintf(path, sizeof(path), GROUPS "/%s/devices",
			 entry->d_name);
		check_members(path, number);
	}
	closedir(groups);
}

static void expect_what_is_there(void)
{
	DIR *devices = opendir(DEVICES);
	struct dirent *entry;
	char path[PATH_MAX], line[64];

	if (!devices)
		err(1, DEVICES);
	while ((entry = readdir(devices))) {
		snprintf(path, sizeof(path), DEVICES "/%s/iommu_group/id",
			 entry->d_name);
		if (entry->d_name[0] == '.' ||
		    read_line(path, line, sizeof(line)))
			continue;
		if (nr_expected == MAX_DEVICES)
			errx(1, "more than %d devices", MAX_DEVICES);
		expected[nr_expected].name = strdup(entry->d_name);
		if (!expected[nr_expected].name)
			err(1, "strdup");
		expected[nr_expected++].number = atoi(line);
	}
	closedir(devices);
}

int main(void)
{
	/* Those that let devices come and go want the processor, too. */
	const struct timespec pause = { .tv_nsec = 50000000 };
	char path[PATH_MAX];
	sigset_t end;
	int i;

	sigemptyset(&end);
	sigaddset(&end, SIGTERM);
	sigprocmask(SIG_BLOCK, &end, NULL);
	expect_what_is_there();
	do {
		for (i = 0; i < nr_expected; i++) {
			snprintf(path, sizeof(path),
				 DEVICES "/%s/iommu_group/id",
				 expected[i].name);
			check_id(path, expected[i].number);
			check_reason(expected[i].name);
		}
		check_groups();
	} while (sigtimedwait(&end, NULL, &pause) < 0);
	printf("%lu read, %lu absent, %lu wrong\n", reads, absent, wrong);
	return 0;
}
