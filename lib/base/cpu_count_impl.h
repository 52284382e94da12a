/* SPDX-License-Identifier: MIT
 * The CPU quota of a cgroup, from files whose place the caller names (for tests). */
#ifndef SONDE_BASE_CPU_COUNT_IMPL_H
#define SONDE_BASE_CPU_COUNT_IMPL_H

/* CPUs that the quota allows, rounded up; 0 when there is none. self is /proc/self/cgroup, mount
 * /sys/fs/cgroup: cpu.max of the unified hierarchy, cpu.cfs_quota_us of version 1, in the process's own group
 * and every group above. */
int sonde_cgroup_cpus(const char *self, const char *mount);

#endif
