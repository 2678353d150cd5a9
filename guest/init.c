// SPDX-License-Identifier: GPL-2.0-only
/*
 * The guest's only process, or a service of a guest with a Debian on its disk: does
 * what the host asks over the second serial port, or over a virtio console where the
 * machine has but one.
 *
 * A request is one line, a command for the shell. The answer is a line with the
 * length of the command's output and its exit status, then that many bytes. The
 * first line, sent once the guest is up, is "ready". The first serial port is
 * left to the kernel's log. Serial ports, because they are on the ISA bus, as
 * arm64's virtio console is on a platform bus: a machine under test gets no PCI
 * device that its description does not name.
 */
#define _GNU_SOURCE
#include <err.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

static void attach(const char *type, const char *path)
{
	mkdir(path, 0755);
	if (mount(type, path, type, 0, NULL))
		warn("mount %s", path);
}

static FILE *open_channel(void)
{
	const char *path = "/dev/ttyS1";
	struct termios raw;
	int fd;

	if (access(path, F_OK))
		path = "/dev/hvc0";
	fd = open(path, O_RDWR | O_NOCTTY | O_CLOEXEC);
	if (fd < 0 || tcgetattr(fd, &raw))
		err(1, "%s", path);
	cfmakeraw(&raw);
	if (tcsetattr(fd, TCSANOW, &raw))
		err(1, "%s", path);
	return fdopen(fd, "r+");
}

/* Runs the command, gives its exit status as a shell does, and its output. */
static int run(const char *command, char **output, size_t *length)
{
	FILE *collected = open_memstream(output, length);
	char buffer[4096];
	ssize_t got;
	int pipes[2];
	int status;
	pid_t pid;

	if (!collected || pipe2(pipes, O_CLOEXEC))
		err(1, "pipe");
	pid = fork();
	if (pid < 0)
		err(1, "fork");
	if (!pid) {
		dup2(pipes[1], STDOUT_FILENO);
		dup2(pipes[1], STDERR_FILENO);
		execl("/bin/sh", "sh", "-c", command, NULL);
		err(127, "/bin/sh");
	}
	close(pipes[1]);
	while ((got = read(pipes[0], buffer, sizeof(buffer))) > 0)
		fwrite(buffer, 1, got, collected);
	close(pipes[0]);
	fclose(collected);
	/* And whatever earlier commands left behind */
	while (waitpid(-1, &status, 0) != pid)
		;
	return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}

int main(void)
{
	char *command = NULL;
	size_t size = 0;
	FILE *channel;

	if (getpid() == 1) {
		attach("proc", "/proc");
		attach("sysfs", "/sys");
		attach("devtmpfs", "/dev");
		attach("debugfs", "/sys/kernel/debug");
		attach("tmpfs", "/tmp");
	}
	setenv("PATH", "/bin", 1);
	setenv("HOME", "/", 1);
	setenv("TERM", "linux", 0);

	channel = open_channel();
	fputs("ready\n", channel);
	fflush(channel);
	while (getline(&command, &size, channel) > 0) {
		char *output;
		size_t length;
		int status;

		status = run(command, &output, &length);
		fseek(channel, 0, SEEK_CUR);
		fprintf(channel, "%zu %d\n", length, status);
		fwrite(output, 1, length, channel);
		fflush(channel);
		free(output);
	}
	err(1, "the host");
}
