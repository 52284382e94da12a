/* SPDX-License-Identifier: MIT
 * The pool: every task once, on any number of threads; CPU quotas. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cpu_count_impl.h"
#include "base/pool.h"

struct tally {
    _Atomic int done[5000];
    _Atomic int bad_thread;
    int n_threads;
};

static void count_task(void *arg, size_t task, int thread)
{
    struct tally *t = arg;
    atomic_fetch_add(&t->done[task], 1);
    if (thread < 0 || thread >= t->n_threads)
        atomic_store(&t->bad_thread, 1);
}

static void every_task_is_done_once(void **state)
{
    (void)state;
    static struct tally t;
    for (int n_threads = 1; n_threads <= 9; n_threads += 2) {
        sonde_pool *p;
        assert_int_equal(sonde_pool_new(n_threads, &p, NULL), SONDE_OK);
        assert_int_equal(sonde_pool_threads(p), n_threads);
        static const size_t sizes[] = {0, 1, 2, 3, 17, 5000};
        for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
            memset(&t, 0, sizeof t);
            t.n_threads = n_threads;
            sonde_pool_run(p, sizes[i], count_task, &t);
            for (size_t k = 0; k < 5000; k++)
                assert_int_equal(t.done[k], k < sizes[i]);
            assert_false(t.bad_thread);
        }
        sonde_pool_free(p);
    }
}

static void add_up(void *arg, size_t task, int thread)
{
    (void)thread;
    ((uint64_t *)arg)[task] += task + 1;
}

/* What a job writes is seen by the next, and by the caller between them, without any atomics of its own. */
static void many_short_jobs_in_a_row_see_each_other(void **state)
{
    (void)state;
    sonde_pool *p;
    assert_int_equal(sonde_pool_new(4, &p, NULL), SONDE_OK);
    uint64_t sum[5] = {0};
    for (int job = 0; job < 20000; job++)
        sonde_pool_run(p, 5, add_up, sum);
    for (uint64_t i = 0; i < 5; i++)
        assert_int_equal(sum[i], 20000 * (i + 1));
    sonde_pool_free(p);
}

struct meeting {
    _Atomic int inside, most;
};

static void meet(void *arg, size_t task, int thread)
{
    (void)task, (void)thread;
    struct meeting *m = arg;
    int now = atomic_fetch_add(&m->inside, 1) + 1, most = atomic_load(&m->most);
    while (now > most && !atomic_compare_exchange_weak(&m->most, &most, now))
        ;
    for (int i = 0; i < 100000 && atomic_load(&m->most) < 3; i++)
        sched_yield();
    atomic_fetch_sub(&m->inside, 1);
}

static void threads_run_at_the_same_time(void **state)
{
    (void)state;
    sonde_pool *p;
    assert_int_equal(sonde_pool_new(3, &p, NULL), SONDE_OK);
    struct meeting m = {0};
    sonde_pool_run(p, 3, meet, &m);
    assert_int_equal(m.most, 3);
    sonde_pool_free(p);
}

static void no_pool_is_the_caller_alone(void **state)
{
    (void)state;
    uint64_t sum[3] = {0};
    sonde_pool_run(NULL, 3, add_up, sum);
    assert_int_equal(sum[2], 3);
    assert_int_equal(sonde_pool_threads(NULL), 1);
    sonde_pool_free(NULL);
}

static void impossible_thread_counts_are_refused(void **state)
{
    (void)state;
    sonde_pool *p = NULL;
    sonde_err err = {0};
    assert_int_equal(sonde_pool_new(-1, &p, &err), SONDE_E_USAGE);
    assert_int_equal(sonde_pool_new(100000, &p, &err), SONDE_E_USAGE);
    assert_null(p);
    assert_int_equal(sonde_pool_new(0, &p, &err), SONDE_OK);
    assert_int_equal(sonde_pool_threads(p), sonde_cpu_count());
    sonde_pool_free(p);
}

static void put_file(const char *dir, const char *name, const char *text)
{
    char path[300];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    for (char *s = strchr(path + 1, '/'); s; s = strchr(s + 1, '/')) {
        *s = '\0';
        (void)mkdir(path, 0700);
        *s = '/';
    }
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fputs(text, f);
    fclose(f);
}

static int quota(const char *dir, const char *self)
{
    char path[300];
    put_file(dir, "self", self);
    snprintf(path, sizeof path, "%s/self", dir);
    return sonde_cgroup_cpus(path, dir);
}

static void cgroup_quota_is_the_smallest_on_the_way_up(void **state)
{
    (void)state;
    char dir[] = "/tmp/sonde-test-XXXXXX", command[100];
    assert_non_null(mkdtemp(dir));
    assert_int_equal(quota(dir, "0::/\n"), 0);
    put_file(dir, "a/b/cpu.max", "max 100000\n");
    assert_int_equal(quota(dir, "0::/a/b\n"), 0);
    put_file(dir, "a/cpu.max", "250000 100000\n");
    assert_int_equal(quota(dir, "0::/a/b\n"), 3);
    put_file(dir, "a/b/cpu.max", "50000 100000\n");
    assert_int_equal(quota(dir, "0::/a/b\n"), 1);
    assert_int_equal(quota(dir, "0::/a/not/mounted\n"), 3);
    put_file(dir, "cpu,cpuacct/docker/1/cpu.cfs_quota_us", "400000\n");
    put_file(dir, "cpu,cpuacct/docker/1/cpu.cfs_period_us", "100000\n");
    assert_int_equal(quota(dir, "5:memory:/docker/1\n4:cpu,cpuacct:/docker/1\n"), 4);
    put_file(dir, "cpu,cpuacct/docker/1/cpu.cfs_quota_us", "-1\n");
    assert_int_equal(quota(dir, "4:cpu,cpuacct:/docker/1\n"), 0);
    assert_int_equal(quota(dir, "4:cpuset:/a\nnonsense\n::\n0::/../a\n"), 0);
    snprintf(command, sizeof command, "rm -r %s", dir);
    assert_int_equal(system(command), 0);
}

static void cpu_count_follows_the_affinity_mask(void **state)
{
    (void)state;
    cpu_set_t before, one;
    assert_int_equal(sched_getaffinity(0, sizeof before, &before), 0);
    assert_true(sonde_cpu_count() >= 1 && sonde_cpu_count() <= CPU_COUNT(&before));
    CPU_ZERO(&one);
    for (int i = 0; CPU_COUNT(&one) == 0; i++)
        if (CPU_ISSET(i, &before))
            CPU_SET(i, &one);
    assert_int_equal(sched_setaffinity(0, sizeof one, &one), 0);
    assert_int_equal(sonde_cpu_count(), 1);
    sched_setaffinity(0, sizeof before, &before);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_task_is_done_once),
        cmocka_unit_test(many_short_jobs_in_a_row_see_each_other),
        cmocka_unit_test(threads_run_at_the_same_time),
        cmocka_unit_test(no_pool_is_the_caller_alone),
        cmocka_unit_test(impossible_thread_counts_are_refused),
        cmocka_unit_test(cgroup_quota_is_the_smallest_on_the_way_up),
        cmocka_unit_test(cpu_count_follows_the_affinity_mask),
    };
    return cmocka_run_group_tests_name("base_pool", tests, NULL, NULL);
}
