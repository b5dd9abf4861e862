// SPDX-License-Identifier: Apache-2.0
/*
 * Runs a program in the root directory of the image as a container's runtime would: root file system read-only, some of the
 * machine's directories, no capability but the given ones, no new privileges. Unlike a runtime it stays one process, which
 * a lab can put into a namespace, kill and read the output of. No seccomp, no process namespace.
 */
#include <fcntl.h>
#include <limits.h>
#include <linux/capability.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include "common.h"

static const char USAGE[] =
	"usage: confine --root DIRECTORY [--capability NUMBER]... [--bind DIRECTORY]... -- PROGRAM [ARGUMENT...]\n"
	"Numbers are those of linux/capability.h; directories are at the same place inside, with what is mounted below them.\n";

enum {
	MAX_BINDS = 16
};

/* Hidden by our own mounts, for us alone (Filesystem Hierarchy Standard: it exists, and no program may use it). */
#define LAYERS "/mnt"
#define INSIDE LAYERS "/root"

static void check(int result, const char *what)
{
	if (result)
		die("confine: %s: %s", what, strerror(errno));
}

/* Makes every directory of an absolute path below the new root. */
static void make_directories(const char *path, char *made)
{
	char *end;

	if (path[0] != '/' || strlen(INSIDE) + strlen(path) >= PATH_MAX)
		die("confine: %s: not an absolute path of usual length", path);
	sprintf(made, "%s%s", INSIDE, path);
	for (end = made + strlen(INSIDE) + 1; (end = strchr(end, '/')); end++) {
		*end = 0;
		if (mkdir(made, 0755) && errno != EEXIST)
			die("confine: %s: %s", made, strerror(errno));
		*end = '/';
	}
	if (mkdir(made, 0755) && errno != EEXIST)
		die("confine: %s: %s", made, strerror(errno));
}

static void show(const char *directory)
{
	char target[PATH_MAX];

	make_directories(directory, target);
	check(mount(directory, target, NULL, MS_BIND | MS_REC, NULL), directory);
}

/* A root of our own, seen by this process and its children alone: it goes with them. */
static void make_root(const char *image, char *const *binds, int count)
{
	char options[2 * PATH_MAX];

	check(unshare(CLONE_NEWNS), "unshare");
	check(mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL), "mounts cannot be made private");
	check(mount("tmpfs", LAYERS, "tmpfs", 0, "mode=0755"), "tmpfs");
	check(mkdir(INSIDE, 0755), INSIDE);
	check(mkdir(LAYERS "/upper", 0755), "upper layer");
	check(mkdir(LAYERS "/work", 0755), "work directory");
	if (snprintf(options, sizeof(options), "lowerdir=%s,upperdir=" LAYERS "/upper,workdir=" LAYERS "/work",
		     image) >= (int)sizeof(options))
		die("confine: %s: too long", image);
	check(mount("overlay", INSIDE, "overlay", 0, options), "overlay");
	show("/proc");
	show("/sys");
	show("/dev");
	for (int i = 0; i < count; i++)
		show(binds[i]);
	check(mount(NULL, INSIDE, NULL, MS_REMOUNT | MS_BIND | MS_RDONLY, NULL), "read-only root");
	check(chroot(INSIDE), "chroot");
	check(chdir("/"), "chdir");
}

static void drop_capabilities(uint64_t kept)
{
	struct __user_cap_header_struct header = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct sets[2] = { 0 };

	for (int i = 0; prctl(PR_CAPBSET_READ, i, 0, 0, 0) >= 0; i++)
		if (!(kept >> i & 1))
			check(prctl(PR_CAPBSET_DROP, i, 0, 0, 0), "capability");
	for (int i = 0; i < 2; i++)
		sets[i].effective = sets[i].permitted = kept >> (32 * i);
	check((int)syscall(SYS_capset, &header, sets), "capset");
	check(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "no new privileges");
}

int main(int argc, char **argv)
{
	static const struct option options[] = {
		{ "root", 1, 0, 1 }, { "capability", 1, 0, 2 }, { "bind", 1, 0, 3 }, { 0 }
	};
	const char *root = NULL;
	char *binds[MAX_BINDS];
	uint64_t kept = 0;
	int option, count = 0;

	/* "+": what follows the program is its own. */
	while ((option = getopt_long(argc, argv, "+", options, NULL)) != -1) {
		if (option == 1)
			root = optarg;
		else if (option == 2)
			kept |= 1ull << number("capability", optarg, 0, 63);
		else if (option == 3 && count < MAX_BINDS)
			binds[count++] = optarg;
		else
			die("%s", USAGE);
	}
	if (!root || optind == argc)
		die("%s", USAGE);
	make_root(root, binds, count);
	drop_capabilities(kept);
	execvp(argv[optind], argv + optind);
	die("confine: %s: %s", argv[optind], strerror(errno));
}
