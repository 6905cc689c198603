/* What machine code in a cell may try, one function an act. Loaded into a process before it enters the jail.
 *
 * An act gives 0 when it was done and an errno when it was refused; what the jail kills does not come back. The acts
 * reach for what `struct victim` names. It is prepared outside, so that each act succeeds where nothing forbids it. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <netinet/in.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/ipc.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/msg.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/shm.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

struct victim {
    int parent;        /* process that started this one */
    int connection;    /* the one socket of a cell */
    int space;         /* descriptor of a network namespace */
    int pidfd;         /* descriptor of the parent */
    int port;          /* TCP listener on 127.0.0.1 */
    const char *name;  /* unix listener in the abstract namespace */
    const char *folder; /* has a file `victim`; more may be made */
    const char *environ; /* the parent's environment under /proc */
    void *secret;      /* memory of the parent, at the same place as here */
};

struct act {
    const char *name;
    long (*run)(void);
};

/* Every ACT puts a pointer to itself into a section of its own, which the linker makes an array of. */
#define ACT(label, ...)                                                                     \
    static long run_##label(void) { __VA_ARGS__ }                                           \
    static const struct act act_##label = {#label, run_##label};                            \
    static const struct act *const listed_##label __attribute__((used, section("acts"))) = &act_##label;
#define TRY(label, call) ACT(label, return (long)(call);)

extern const struct act *const __start_acts[], *const __stop_acts[];

static struct victim at;
static char stack[65536] __attribute__((aligned(16)));
static char buffer[4096];

static const char *in_folder(const char *name) {
    strncpy(buffer, at.folder, 400);
    strcat(buffer, "/");
    return strcat(buffer, name);
}

static long reap(long child) {
    if (child == 0) _exit(0);
    if (child > 0) waitpid((pid_t)child, NULL, __WALL);
    return child;
}

static int nothing(void *argument) {
    (void)argument;
    return 0;
}

/* A page of code that nothing else is on. */
static int alone(void) __attribute__((aligned(4096), noinline, used));
static int alone(void) { return 1; }
static int next(void) __attribute__((aligned(4096), noinline, used));
static int next(void) { return 2; }

static void *map(int rights, int kind) { return mmap(NULL, 4096, rights, kind, -1, 0); }
static void *plain(int rights) { return map(rights, MAP_PRIVATE | MAP_ANONYMOUS); }
static long mapped(int rights, int kind) { return map(rights, kind) == MAP_FAILED ? -1 : 0; }

/* Files. */
TRY(file_read, open("/etc/passwd", O_RDONLY))
ACT(file_read_openat2, uint64_t how[3] = {O_RDONLY}; return syscall(437, AT_FDCWD, "/etc/passwd", how, sizeof how);)
TRY(file_make, open(in_folder("made"), O_WRONLY | O_CREAT, 0600))
TRY(file_remove, unlink(in_folder("victim")))
TRY(file_rights, chmod(in_folder("victim"), 0755))
TRY(file_look, syscall(SYS_statx, AT_FDCWD, "/etc/passwd", 0, 0xFFF, stack))
TRY(file_link, readlink("/proc/self/exe", buffer, sizeof buffer))
TRY(folder_make, mkdir(in_folder("folder"), 0700))
TRY(folder_open, open("/etc", O_RDONLY | O_DIRECTORY))
TRY(folder_change, chdir("/etc"))
TRY(root_change, chroot("/etc"))
TRY(proc_own_memory, open("/proc/self/mem", O_RDWR))
TRY(proc_parent, open(at.environ, O_RDONLY))
TRY(proc_kernel, open("/proc/sys/kernel/hostname", O_RDONLY))

/* Sockets, and descriptors that could come in through the one that there is. */
static long connect_abstract(int fd) {
    struct sockaddr_un name = {.sun_family = AF_UNIX};
    strncpy(name.sun_path + 1, at.name, sizeof name.sun_path - 2);
    return connect(fd, (struct sockaddr *)&name, (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + strlen(at.name)));
}

TRY(socket_inet, socket(AF_INET, SOCK_STREAM, 0))
TRY(socket_inet6, socket(AF_INET6, SOCK_DGRAM, 0))
TRY(socket_unix, socket(AF_UNIX, SOCK_STREAM, 0))
TRY(socket_netlink, socket(AF_NETLINK, SOCK_RAW, 0))
TRY(socket_raw, socket(AF_INET, SOCK_RAW, IPPROTO_ICMP))
ACT(socket_pair, int pair[2]; return socketpair(AF_UNIX, SOCK_STREAM, 0, pair);)
ACT(connect_inet, struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons((uint16_t)at.port)};
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK); int fd = socket(AF_INET, SOCK_STREAM, 0);
    return fd < 0 ? -1 : connect(fd, (struct sockaddr *)&to, sizeof to);)
ACT(connect_abstract, int fd = socket(AF_UNIX, SOCK_STREAM, 0); return fd < 0 ? -1 : connect_abstract(fd);)
ACT(descriptor_pass, char control[CMSG_SPACE(sizeof(int))] = {0}; char byte = 'x'; struct iovec part = {&byte, 1};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
    struct cmsghdr *header = CMSG_FIRSTHDR(&message); header->cmsg_level = SOL_SOCKET; header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(sizeof(int)); memcpy(CMSG_DATA(header), &at.connection, sizeof(int));
    return sendmsg(at.connection, &message, MSG_NOSIGNAL);)
ACT(descriptor_take, struct msghdr none = {0};
    return recvmsg(at.connection, &none, MSG_DONTWAIT) < 0 && errno != EAGAIN ? -1 : 0;)
TRY(descriptor_copy, dup(at.connection))
TRY(descriptor_control, fcntl(at.connection, F_GETFL))
ACT(socket_option, int size = 1 << 20; return setsockopt(at.connection, SOL_SOCKET, SO_SNDBUF, &size, sizeof size);)
TRY(socket_shut, shutdown(at.connection, SHUT_RD))
ACT(socket_peer, socklen_t size = sizeof buffer; return getsockopt(at.connection, SOL_SOCKET, SO_PEERCRED, buffer, &size);)

/* Other processes. */
TRY(fork_glibc, reap(fork()))
TRY(fork_raw, reap(syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0)))
#ifdef SYS_vfork
ACT(fork_vfork, pid_t child = vfork(); if (child == 0) _exit(0); return reap(child);)
#endif
ACT(fork_clone3, uint64_t how[11] = {0}; how[4] = SIGCHLD; return reap(syscall(435, how, sizeof how));)
TRY(thread, clone(nothing, stack + sizeof stack,
    CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD | CLONE_SYSVSEM, NULL))
ACT(exec, char *arguments[] = {"true", NULL}; return execve("/bin/true", arguments, arguments + 1);)
ACT(exec_at, char *arguments[] = {"true", NULL};
    return syscall(SYS_execveat, AT_FDCWD, "/bin/true", arguments, arguments + 1, 0);)
TRY(ptrace_own, ptrace(PTRACE_TRACEME, 0, 0, 0))
TRY(ptrace_parent, ptrace(PTRACE_SEIZE, at.parent, 0, 0))
ACT(memory_read, struct iovec here = {buffer, 8}; struct iovec there = {at.secret, 8};
    return process_vm_readv(at.parent, &here, 1, &there, 1, 0);)
ACT(memory_write, struct iovec here = {buffer, 8}; struct iovec there = {at.secret, 8};
    return process_vm_writev(at.parent, &here, 1, &there, 1, 0);)
ACT(memory_advise, struct iovec there = {at.secret, 4096}; return syscall(440, at.pidfd, &there, 1UL, 20, 0);)
TRY(compare_parent, syscall(SYS_kcmp, at.parent, getpid(), 1, 0, 0))
TRY(signal_kill, kill(at.parent, 0))
TRY(signal_everyone, kill(-1, 0))
TRY(signal_tgkill, syscall(SYS_tgkill, at.parent, at.parent, 0))
TRY(signal_tkill, syscall(SYS_tkill, at.parent, 0))
ACT(signal_queue, siginfo_t about = {.si_code = SI_QUEUE}; return syscall(SYS_rt_sigqueueinfo, at.parent, 0, &about);)
TRY(signal_pidfd, syscall(424, at.pidfd, 0, NULL, 0))
TRY(pidfd_open, syscall(434, at.parent, 0))
TRY(pidfd_take, syscall(438, at.pidfd, 0, 0))
ACT(signal_handler, struct sigaction how = {.sa_handler = SIG_IGN}; return sigaction(SIGUSR1, &how, NULL);)
TRY(signal_timer, alarm(1000))
TRY(priority_parent, setpriority(PRIO_PROCESS, (id_t)at.parent, 0))
ACT(affinity_parent, cpu_set_t all; memset(&all, 0xFF, sizeof all); return sched_setaffinity(at.parent, sizeof all, &all);)
ACT(scheduler_own, struct sched_param how = {0}; return sched_setscheduler(0, SCHED_BATCH, &how);)
ACT(limits_parent, struct rlimit found; return prlimit(at.parent, RLIMIT_NOFILE, NULL, &found);)
ACT(limits_parent_memory, struct rlimit found; return prlimit(at.parent, RLIMIT_AS, NULL, &found);)
ACT(limits_own_files, struct rlimit found; return prlimit(0, RLIMIT_NOFILE, NULL, &found);)
ACT(limits_own_memory, struct rlimit all = {RLIM_INFINITY, RLIM_INFINITY}; return prlimit(0, RLIMIT_AS, &all, NULL);)

/* The kernel. */
TRY(mount, mount("none", at.folder, "tmpfs", 0, "size=4k"))
TRY(mount_open, syscall(430, "tmpfs", 0))
TRY(mount_tree, syscall(428, AT_FDCWD, "/", 1))
TRY(namespace_user, unshare(CLONE_NEWUSER))
TRY(namespace_net, unshare(CLONE_NEWNET))
TRY(namespace_mount, unshare(CLONE_NEWNS))
TRY(namespace_enter, setns(at.space, CLONE_NEWNET))
ACT(io_uring, uint64_t how[15] = {0}; return syscall(425, 1, how);)
ACT(bpf, uint32_t how[16] = {2, 4, 4, 1}; return syscall(SYS_bpf, 0, how, sizeof how);)
TRY(userfaultfd, syscall(SYS_userfaultfd, 1))
ACT(perf_event, uint32_t how[32] = {1, sizeof how}; how[10] = 1 << 5;
    return syscall(SYS_perf_event_open, how, 0, -1, -1, 0UL);)
TRY(memfd, syscall(SYS_memfd_create, "x", 0))
TRY(memfd_secret, syscall(447, 0))
TRY(keyctl, syscall(SYS_keyctl, 0, -2, 1))
TRY(key_add, syscall(SYS_add_key, "user", "cs", "x", 1UL, -2))
TRY(event, syscall(SYS_eventfd2, 0, 0))
TRY(notify, syscall(SYS_inotify_init1, 0))
TRY(poll_set, syscall(SYS_epoll_create1, 0))
ACT(pipe, int ends[2]; return pipe(ends);)
ACT(shared_segment, int made = shmget(IPC_PRIVATE, 4096, 0600); return made < 0 ? -1 : shmctl(made, IPC_RMID, NULL);)
ACT(message_queue, int made = msgget(IPC_PRIVATE, 0600); return made < 0 ? -1 : msgctl(made, IPC_RMID, NULL);)
TRY(landlock, syscall(444, NULL, 0UL, 1))
ACT(seccomp, uint32_t kill = 0; return syscall(SYS_seccomp, 2, 0, &kill);)
TRY(system_name, syscall(SYS_uname, buffer))
TRY(system_info, syscall(SYS_sysinfo, buffer))
TRY(system_log, syscall(SYS_syslog, 10, NULL, 0))
ACT(module, return syscall(SYS_init_module, stack, 0UL, "") < 0 && errno != ENOEXEC ? -1 : 0;)
TRY(user_change, setresuid(0, 0, 0))
TRY(group_change, syscall(SYS_setgroups, 0UL, NULL))
ACT(capabilities, uint32_t header[2] = {0x20080522, 0}; return syscall(SYS_capget, header, buffer);)
TRY(dumpable, prctl(PR_SET_DUMPABLE, 1, 0, 0, 0))
TRY(death_signal, prctl(PR_SET_PDEATHSIG, 0, 0, 0, 0))
TRY(personality, syscall(SYS_personality, 0xFFFFFFFFUL))

/* Memory that is executable, shared, locked, or not what an allocator asks for. */
TRY(code_all_rights, mapped(PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS))
TRY(code_map, mapped(PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS))
TRY(code_make, mprotect(plain(PROT_READ | PROT_WRITE), 4096, PROT_READ | PROT_EXEC))
TRY(code_make_writable, mprotect((void *)alone, 4096, PROT_READ | PROT_WRITE | PROT_EXEC))
TRY(code_by_key, syscall(SYS_pkey_mprotect, plain(PROT_READ), 4096UL, PROT_READ | PROT_EXEC, -1))
ACT(code_move, void *to = plain(PROT_READ);
    return mremap((void *)alone, 4096, 4096, MREMAP_MAYMOVE | MREMAP_FIXED, to) == MAP_FAILED ? -1 : 0;)
TRY(memory_shared, mapped(PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS))
TRY(memory_grows_down, mapped(PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_GROWSDOWN))
TRY(memory_locked, mapped(PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_LOCKED))
TRY(memory_lock, mlock(plain(PROT_READ), 4096))
TRY(memory_huge, madvise(plain(PROT_READ), 4096, MADV_NOHUGEPAGE))
ACT(futex_priority, uint32_t word = 0; return syscall(SYS_futex, &word, FUTEX_LOCK_PI, 0, NULL, NULL, 0);)
ACT(futex_move, uint32_t one = 0; uint32_t two = 0;
    return syscall(SYS_futex, &one, FUTEX_CMP_REQUEUE, 1, 1UL, &two, 0);)
#if defined(__x86_64__)
TRY(ports, syscall(SYS_ioperm, 0x80UL, 1UL, 1))
ACT(table_of_32_bits, long answer;
    __asm__ volatile("int $0x80" : "=a"(answer) : "a"(20L) : "memory", "r8", "r9", "r10", "r11");
    return answer > 0 ? 0 : -1;)
TRY(table_of_x32, syscall(0x40000000L | 39))
#endif

/* What a cell may do: with these in the table, an act cannot be killed merely because it was loaded or called. */
ACT(may_return, return 0;)
TRY(may_tell_time, syscall(SYS_clock_gettime, 1, buffer))
TRY(may_have_memory, munmap(plain(PROT_READ | PROT_WRITE), 4096))
TRY(may_send, sendto(at.connection, "x", 1, MSG_NOSIGNAL, NULL, 0))

int count_acts(void) { return (int)(__stop_acts - __start_acts); }
const char *name_act(int number) { return __start_acts[number]->name; }

/* Perform an act and end the process: with 0, or with the errno. */
void perform_act(int number, const struct victim *victim) {
    at = *victim;
    errno = 0;
    _exit(__start_acts[number]->run() == -1 ? errno ? errno : EPERM : 0);
}

/* Make a call by its number, whatever it is, and end the process likewise. */
void call_number(long number) {
    errno = 0;
    _exit(syscall(number, -1L, -1L, -1L, -1L, -1L, -1L) == -1 ? errno : 0);
}
