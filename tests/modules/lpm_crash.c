// SPDX-License-Identifier: MIT OR GPL-2.0
/* Its init does what a broken module does, for so many seconds or so many times. */
#include <linux/delay.h>
#include <linux/kernel.h>
#include <linux/ktime.h>
#include <linux/module.h>
#include <linux/preempt.h>
#include <linux/rcupdate.h>
#include <linux/sched.h>

static char *how = "";
module_param(how, charp, 0444);
static int seconds = 3600;
module_param(seconds, int, 0444);
static int times = 1;
module_param(times, int, 0444);
/* Written while its init runs: "spin" ends before its seconds are over. */
static bool stop;
module_param(stop, bool, 0644);

static int __attribute__((__noipa__)) lpm_crash_null(void)
{
	*(volatile int *)8 = 1;
	return 0;
}

static struct rcu_head head;

static void lpm_crash_nothing(struct rcu_head *unused)
{
}

static void __attribute__((__noipa__)) lpm_crash_spin(void)
{
	time64_t end = ktime_get_seconds() + seconds;

	/* Without a grace period that waits for this CPU, RCU has no complaint. */
	call_rcu(&head, lpm_crash_nothing);
	preempt_disable();
	while (ktime_get_seconds() < end && !READ_ONCE(stop))
		cpu_relax();
	preempt_enable();
}

static void __attribute__((__noipa__)) lpm_crash_hang(void)
{
	set_current_state(TASK_UNINTERRUPTIBLE);
	schedule_timeout(seconds * HZ);
}

static void __attribute__((__noipa__)) lpm_crash_warn(void)
{
	while (times-- > 0) {
		WARN(1, "lpm_crash warns");
		cond_resched();
	}
}

static int __init lpm_crash_init(void)
{
	if (!strcmp(how, "null"))
		return lpm_crash_null();
	if (!strcmp(how, "warn"))
		lpm_crash_warn();
	if (!strcmp(how, "spin"))
		lpm_crash_spin();
	if (!strcmp(how, "hang"))
		lpm_crash_hang();
	return 0;
}

static void __exit lpm_crash_exit(void)
{
}

module_init(lpm_crash_init);
module_exit(lpm_crash_exit);
MODULE_LICENSE("Dual MIT/GPL");
