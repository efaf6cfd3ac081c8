/*
 * Measures what this machine can do at best, without a language runtime in the way.
 *
 * usage: limits memcpy    BYTES               copy warm private memory
 *        limits copies    BYTES               to another process and back: four copies through warm shared memory
 *        limits pingpong  N spin|sleep US any|each   round trips between two processes through a futex, US microseconds
 *                                             apart, on any CPUs or with one for each
 *        limits start     N PROGRAM           posix_spawn until the program's first byte
 *        limits handover  BYTES N             a filled memfd to another process: SCM_RIGHTS, mmap, first word, answer
 *
 * Prints one JSON object; times are in seconds.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <linux/futex.h>
#include <sched.h>
#include <spawn.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* No run takes longer: whatever goes wrong, nothing stays behind. */
enum { LIFETIME = 100 };

extern char **environ;

static void die(const char *what)
{
	perror(what);
	exit(1);
}

static double now(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec + t.tv_nsec * 1e-9;
}

static int ascending(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;
	return (x > y) - (x < y);
}

static void print_percentiles(double *took, int n)
{
	qsort(took, n, sizeof *took, ascending);
	printf("{\"p50\": %.9f, \"p99\": %.9f}\n", took[n / 2], took[(int)(n * 0.99)]);
}

static void *map(size_t size, int flags)
{
	void *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_ANONYMOUS | flags, -1, 0);
	if (p == MAP_FAILED)
		die("mmap");
	memset(p, 1, size);
	return p;
}

static void *allocate(size_t size)
{
	void *p = calloc(size, 1);
	if (!p)
		die("calloc");
	return p;
}

static void start_life(void) { alarm(LIFETIME); }

static pid_t start_fork(void)
{
	pid_t pid = fork();
	if (pid < 0)
		die("fork");
	if (pid == 0)
		start_life(); /* an alarm is not inherited */
	return pid;
}

/* A turn is a number that one process raises and the other waits for. */
struct turn {
	_Alignas(128) _Atomic uint32_t value;
};

static void give(struct turn *t, uint32_t value, int sleeps)
{
	atomic_store(&t->value, value);
	if (sleeps)
		syscall(SYS_futex, &t->value, FUTEX_WAKE, 1, NULL, NULL, 0);
}

static void await(struct turn *t, uint32_t value, int sleeps)
{
	uint32_t seen;
	while ((seen = atomic_load(&t->value)) != value) {
		if (sleeps)
			syscall(SYS_futex, &t->value, FUTEX_WAIT, seen, NULL, NULL, 0);
#if defined(__x86_64__) || defined(__i386__)
		else
			__builtin_ia32_pause();
#endif
	}
}

/* Binds this process to the which-th of its CPUs, or to the last one. */
static void bind_to(int which)
{
	cpu_set_t may, one;
	if (sched_getaffinity(0, sizeof may, &may))
		die("sched_getaffinity");
	CPU_ZERO(&one);
	for (int cpu = 0; cpu < CPU_SETSIZE && which >= 0; cpu++) {
		if (CPU_ISSET(cpu, &may)) {
			CPU_ZERO(&one);
			CPU_SET(cpu, &one);
			which--;
		}
	}
	if (sched_setaffinity(0, sizeof one, &one))
		die("sched_setaffinity");
}

static void pingpong(int n, int sleeps, int gap, int each)
{
	struct turn *turns = map(2 * sizeof *turns, MAP_SHARED), *there = &turns[0], *back = &turns[1];
	double *took = allocate(n * sizeof *took);
	int warm = n / 10 + 1;
	there->value = back->value = 0;
	if (start_fork() == 0) {
		if (each)
			bind_to(1);
		for (int i = 1; i <= warm + n; i++) {
			await(there, i, sleeps);
			give(back, i, sleeps);
		}
		_exit(0);
	}
	if (each)
		bind_to(0);
	for (int i = 1; i <= warm + n; i++) {
		if (gap > 0)
			usleep(gap);
		double began = now();
		give(there, i, sleeps);
		await(back, i, sleeps);
		if (i > warm)
			took[i - warm - 1] = now() - began;
	}
	wait(NULL);
	print_percentiles(took, n);
}

enum { WARM = 2, TIMED = 5 };

static void print_median(double *took)
{
	qsort(took, TIMED, sizeof *took, ascending);
	printf("{\"seconds\": %.9f}\n", took[TIMED / 2]);
}

/* Keeps the compiler from leaving out a copy that nobody looks at. */
static void used(void *p) { __asm__ volatile("" : : "r"(p) : "memory"); }

static void copy_once(size_t size)
{
	char *from = map(size, MAP_PRIVATE), *to = map(size, MAP_PRIVATE);
	double took[TIMED];
	for (int i = -WARM; i < TIMED; i++) {
		double began = now();
		memcpy(to, from, size);
		used(to);
		if (i >= 0)
			took[i] = now() - began;
	}
	print_median(took);
}

static void copy_four_times(size_t size)
{
	struct turn *turns = map(2 * sizeof *turns, MAP_SHARED), *there = &turns[0], *back = &turns[1];
	char *in = map(size, MAP_SHARED), *out = map(size, MAP_SHARED);
	double took[TIMED];
	there->value = back->value = 0;
	if (start_fork() == 0) {
		char *own = map(size, MAP_PRIVATE);
		for (int i = 1; i <= WARM + TIMED; i++) {
			await(there, i, 1);
			memcpy(own, in, size);
			used(own);
			memcpy(out, own, size);
			give(back, i, 1);
		}
		_exit(0);
	}
	char *from = map(size, MAP_PRIVATE), *to = map(size, MAP_PRIVATE);
	for (int i = 1; i <= WARM + TIMED; i++) {
		double began = now();
		memcpy(in, from, size);
		give(there, i, 1);
		await(back, i, 1);
		memcpy(to, out, size);
		used(to);
		if (i > WARM)
			took[i - WARM - 1] = now() - began;
	}
	wait(NULL);
	print_median(took);
}

static void start(int n, char *program)
{
	double *took = allocate(n * sizeof *took);
	int null = open("/dev/null", O_RDONLY | O_CLOEXEC);
	if (null < 0)
		die("/dev/null");
	for (int i = -n / 10 - 1; i < n; i++) {
		int ends[2];
		char byte, *argv[] = {program, NULL};
		posix_spawn_file_actions_t actions;
		pid_t pid;
		if (pipe2(ends, O_CLOEXEC))
			die("pipe");
		double began = now();
		posix_spawn_file_actions_init(&actions);
		posix_spawn_file_actions_adddup2(&actions, null, 0);
		posix_spawn_file_actions_adddup2(&actions, ends[1], 1);
		if (posix_spawn(&pid, program, &actions, NULL, argv, environ))
			die(program);
		close(ends[1]);
		if (read(ends[0], &byte, 1) != 1)
			die("first byte");
		if (i >= 0)
			took[i] = now() - began;
		posix_spawn_file_actions_destroy(&actions);
		close(ends[0]);
		waitpid(pid, NULL, 0);
	}
	print_percentiles(took, n);
}

union control {
	struct cmsghdr header;
	char space[CMSG_SPACE(sizeof(int))];
};

static void message(struct msghdr *m, struct iovec *v, char *byte, union control *c)
{
	*v = (struct iovec){byte, 1};
	*m = (struct msghdr){.msg_iov = v, .msg_iovlen = 1, .msg_control = c, .msg_controllen = sizeof c->space};
}

static void send_fd(int sock, int fd)
{
	struct msghdr m;
	struct iovec v;
	union control c = {.header = {.cmsg_len = CMSG_LEN(sizeof fd), .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS}};
	char byte = 0;
	message(&m, &v, &byte, &c);
	memcpy(CMSG_DATA(&c.header), &fd, sizeof fd);
	if (sendmsg(sock, &m, 0) != 1)
		die("sendmsg");
}

static int receive_fd(int sock)
{
	struct msghdr m;
	struct iovec v;
	union control c;
	char byte;
	int fd;
	message(&m, &v, &byte, &c);
	if (recvmsg(sock, &m, MSG_CMSG_CLOEXEC) != 1 || m.msg_controllen == 0)
		die("recvmsg");
	memcpy(&fd, CMSG_DATA(&c.header), sizeof fd);
	return fd;
}

static void handover(size_t size, int n)
{
	double *took = allocate(n * sizeof *took);
	int ends[2], warm = n / 10 + 1;
	int fd = memfd_create("limits", MFD_CLOEXEC);
	if (fd < 0 || ftruncate(fd, size) || socketpair(AF_UNIX, SOCK_STREAM, 0, ends))
		die("memfd");
	uint64_t *ours = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (ours == MAP_FAILED)
		die("mmap");
	memset(ours, 1, size);
	if (start_fork() == 0) {
		for (int i = 0; i < warm + n; i++) {
			int got = receive_fd(ends[1]);
			uint64_t *p = mmap(NULL, size, PROT_READ, MAP_SHARED, got, 0);
			if (p == MAP_FAILED || write(ends[1], p, sizeof *p) != sizeof *p)
				die("child");
			munmap(p, size);
			close(got);
		}
		_exit(0);
	}
	for (int i = 0; i < warm + n; i++) {
		uint64_t word;
		double began = now();
		send_fd(ends[0], fd);
		if (read(ends[0], &word, sizeof word) != sizeof word || word != *ours)
			die("answer");
		if (i >= warm)
			took[i - warm] = now() - began;
	}
	wait(NULL);
	print_percentiles(took, n);
}

int main(int argc, char **argv)
{
	start_life();
	const char *what = argc > 2 ? argv[1] : "";
	size_t n = argc > 2 ? strtoull(argv[2], NULL, 10) : 0;
	if (n == 0 || n > 1ull << 40)
		;
	else if (!strcmp(what, "memcpy"))
		return copy_once(n), 0;
	else if (!strcmp(what, "copies"))
		return copy_four_times(n), 0;
	else if (!strcmp(what, "pingpong") && argc > 5)
		return pingpong(n, !strcmp(argv[3], "sleep"), atoi(argv[4]), !strcmp(argv[5], "each")), 0;
	else if (!strcmp(what, "start") && argc > 3)
		return start(n, argv[3]), 0;
	else if (!strcmp(what, "handover") && argc > 3)
		return handover(n, atoi(argv[3])), 0;
	fputs("usage: limits memcpy|copies|pingpong|start|handover NUMBER ...; see the top of limits.c\n", stderr);
	return 2;
}
