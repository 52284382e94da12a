/* SPDX-License-Identifier: MIT
 * Signals of a long run; each case in a child process of its own. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "signals.h"

/* Run body in a child with standard error in `said`; the child's wait status. */
static int in_child(void (*body)(void), char said[200])
{
    int fd[2], status;
    assert_int_equal(pipe(fd), 0);
    fflush(NULL);
    pid_t child = fork();
    if (child == 0) {
        dup2(fd[1], STDERR_FILENO);
        close(fd[0]);
        close(fd[1]);
        body();
        _exit(0);
    }
    close(fd[1]);
    ssize_t n = read(fd[0], said, 199);
    said[n > 0 ? n : 0] = '\0';
    close(fd[0]);
    assert_int_equal(waitpid(child, &status, 0), child);
    return status;
}

static void each_sets_the_flag(void)
{
    static const int signals[] = {SIGINT, SIGTERM, SIGHUP, SIGUSR1, SIGXCPU};
    for (size_t i = 0; i < sizeof signals / sizeof *signals; i++) {
        pid_t child = fork();
        if (child == 0) {
            signal(signals[i], SIG_DFL); /* nohup, for one, ignores some */
            const volatile sig_atomic_t *stop = signals_catch_stop();
            int before = *stop;
            raise(signals[i]);
            _exit(before == 0 && *stop != 0 ? 0 : 1);
        }
        int status;
        waitpid(child, &status, 0);
        if (status)
            _exit(10 + (int)i);
    }
}

static void stop_signals_set_the_flag(void **state)
{
    (void)state;
    char said[200];
    assert_int_equal(in_child(each_sets_the_flag, said), 0);
}

static void interrupt_twice(void)
{
    signal(SIGINT, SIG_DFL);
    signals_catch_stop();
    raise(SIGINT);
    raise(SIGINT);
}

static void second_interrupt_ends_it_at_once(void **state)
{
    (void)state;
    char said[200];
    int status = in_child(interrupt_twice, said);
    assert_true(WIFSIGNALED(status));
    assert_int_equal(WTERMSIG(status), SIGINT);
}

static void terminate_often(void)
{
    signal(SIGTERM, SIG_DFL);
    const volatile sig_atomic_t *stop = signals_catch_stop();
    for (int i = 0; i < 5; i++)
        raise(SIGTERM);
    _exit(*stop ? 7 : 1);
}

/* Batch systems send SIGTERM more than once before SIGKILL. */
static void repeated_terminate_does_not_kill(void **state)
{
    (void)state;
    char said[200];
    assert_int_equal(WEXITSTATUS(in_child(terminate_often, said)), 7);
}

static void ignored_before(void)
{
    signal(SIGHUP, SIG_IGN);
    const volatile sig_atomic_t *stop = signals_catch_stop();
    raise(SIGHUP);
    _exit(*stop ? 1 : 7);
}

static void ignored_signals_stay_ignored(void **state)
{
    (void)state;
    char said[200];
    assert_int_equal(WEXITSTATUS(in_child(ignored_before, said)), 7);
}

static void read_a_cut_file(void)
{
    char path[] = "/tmp/sonde-test-XXXXXX";
    int fd = mkstemp(path);
    unlink(path);
    if (fd < 0 || ftruncate(fd, 20000))
        _exit(1);
    const volatile char *p = mmap(NULL, 20000, PROT_READ, MAP_SHARED, fd, 0);
    signals_prepare();
    if (ftruncate(fd, 100))
        _exit(1);
    _exit(p[15000] + 1);
}

static void file_cut_while_mapped_is_one_line_and_exit_4(void **state)
{
    (void)state;
    char said[200];
    int status = in_child(read_a_cut_file, said);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 4);
    assert_string_equal(said, "sonde: an input file changed on disk while in use\n");
}

static void close_all_and_open(void)
{
    close(0);
    close(1);
    close(2);
    signals_prepare();
    int fd = open("/dev/null", O_RDONLY);
    char c;
    _exit(fd == 3 && read(0, &c, 1) < 0 && write(1, "x", 1) < 0 && write(2, "x", 1) == 1 ? 7 : 1);
}

static void closed_streams_are_not_reused_for_files(void **state)
{
    (void)state;
    char said[200];
    assert_int_equal(WEXITSTATUS(in_child(close_all_and_open, said)), 7);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(stop_signals_set_the_flag),
        cmocka_unit_test(second_interrupt_ends_it_at_once),
        cmocka_unit_test(repeated_terminate_does_not_kill),
        cmocka_unit_test(ignored_signals_stay_ignored),
        cmocka_unit_test(file_cut_while_mapped_is_one_line_and_exit_4),
        cmocka_unit_test(closed_streams_are_not_reused_for_files),
    };
    return cmocka_run_group_tests_name("tool_signals", tests, NULL, NULL);
}
