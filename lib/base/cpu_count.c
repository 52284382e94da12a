/* SPDX-License-Identifier: MIT */
#include "cpu_count_impl.h"

#include <limits.h>
#include <sched.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "pool.h"

static bool read_line(const char *dir, const char *name, char *line, int n)
{
    char path[2 * PATH_MAX];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    FILE *f = fopen(path, "re");
    if (!f)
        return false;
    bool ok = fgets(line, n, f) != NULL;
    fclose(f);
    return ok;
}

/* Quota and period in microseconds to CPUs; 0 for "max", -1 and nonsense. */
static int cpus(long long quota, long long period)
{
    if (quota <= 0 || period <= 0)
        return 0;
    long long n = quota / period + (quota % period != 0);
    return n > INT_MAX ? 0 : (int)n;
}

static int group_cpus(const char *dir, bool unified)
{
    char a[64], b[64], *end;
    if (unified) {
        if (!read_line(dir, "cpu.max", a, sizeof a))
            return 0;
        long long quota = strtoll(a, &end, 10); /* "max 100000" reads as 0: none */
        return cpus(quota, strtoll(end, NULL, 10));
    }
    if (!read_line(dir, "cpu.cfs_quota_us", a, sizeof a) || !read_line(dir, "cpu.cfs_period_us", b, sizeof b))
        return 0;
    return cpus(strtoll(a, NULL, 10), strtoll(b, NULL, 10));
}

static int smaller(int best, int n)
{
    return n && (!best || n < best) ? n : best;
}

/* The group and all above it. In a container the path may name groups that are not mounted there; their quota
 * is then the one at the mount. */
static int branch_cpus(const char *mount, const char *controller, const char *group, bool unified)
{
    char dir[PATH_MAX];
    int n = snprintf(dir, sizeof dir, "%s%s%s", mount, controller, group);
    if (n < 0 || (size_t)n >= sizeof dir)
        return 0;
    size_t root = strlen(mount) + strlen(controller);
    int best = 0;
    for (;;) {
        best = smaller(best, group_cpus(dir, unified));
        char *slash = strrchr(dir + root, '/');
        if (!slash)
            return best;
        *slash = '\0';
    }
}

/* Is `cpu` one of the comma-separated controllers? */
static bool has_cpu(const char *list)
{
    for (const char *p = list; p; p = strchr(p, ',') ? strchr(p, ',') + 1 : NULL)
        if (!strncmp(p, "cpu", 3) && (p[3] == ',' || p[3] == '\0'))
            return true;
    return false;
}

int sonde_cgroup_cpus(const char *self, const char *mount)
{
    FILE *f = fopen(self, "re");
    if (!f)
        return 0;
    int best = 0;
    char line[PATH_MAX], controller[256];
    while (fgets(line, sizeof line, f)) { /* "0::/user.slice" or "4:cpu,cpuacct:/docker/1234" */
        line[strcspn(line, "\n")] = '\0';
        char *list = strchr(line, ':'), *group = list ? strchr(list + 1, ':') : NULL;
        if (!group)
            continue;
        *group++ = '\0';
        list++;
        if (strstr(group, ".."))
            group = line + strlen(line);
        if (*list == '\0') {
            best = smaller(best, branch_cpus(mount, "", group, true));
        } else if (has_cpu(list)) {
            snprintf(controller, sizeof controller, "/%s", list);
            best = smaller(best, branch_cpus(mount, controller, group, false));
            best = smaller(best, branch_cpus(mount, "/cpu", group, false));
        }
    }
    fclose(f);
    return best;
}

static int affinity_cpus(void)
{
    for (int size = 1024; size <= 1 << 20; size *= 2) {
        cpu_set_t *set = CPU_ALLOC((size_t)size);
        if (!set)
            return 1;
        size_t bytes = CPU_ALLOC_SIZE((size_t)size);
        int n = sched_getaffinity(0, bytes, set) ? 0 : CPU_COUNT_S(bytes, set);
        CPU_FREE(set);
        if (n > 0)
            return n;
    }
    return 1;
}

int sonde_cpu_count(void)
{
    int n = affinity_cpus(), quota = sonde_cgroup_cpus("/proc/self/cgroup", "/sys/fs/cgroup");
    return quota && quota < n ? quota : n;
}
