// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * The module whose functions the livepatches of the scenarios replace.
 *
 * /proc/lpm_target/hold           read: sleep in lpm_hold() while it is 1; write 0 or 1
 * /proc/lpm_target/kthread_sleep  write 1: a kthread sleeps in lpm_kthread_sleep(), 0: it returns
 * /proc/lpm_target/spin           write 1: a kthread spins in lpm_spin(), 0: it returns
 * /proc/lpm_target/version        read: who answers, the original or a livepatch
 * /proc/lpm_target/status         read: how many tasks are inside each function
 */
#include <linux/fs.h>
#include <linux/kernel.h>
#include <linux/kthread.h>
#include <linux/module.h>
#include <linux/proc_fs.h>
#include <linux/seq_file.h>
#include <linux/uaccess.h>
#include <linux/version.h>

#include "lpm_target.h"

#if LINUX_VERSION_CODE < KERNEL_VERSION(5, 17, 0)
#define pde_data PDE_DATA
#endif

/* Global, so that their symbols are theirs alone; nothing else uses them. */
int lpm_hold(struct lpm_state *state);
void lpm_kthread_sleep(struct lpm_state *state);
void lpm_spin(struct lpm_state *state);
const char *lpm_version(void);

static struct lpm_state lpm_state = {
	.wait = __WAIT_QUEUE_HEAD_INITIALIZER(lpm_state.wait),
	.hold = true,
};
static struct task_struct *lpm_sleeper;
static struct task_struct *lpm_spinner;
static struct proc_dir_entry *lpm_directory;

lpm_patchable int lpm_hold(struct lpm_state *state)
{
	return lpm_hold_body(state);
}

lpm_patchable void lpm_kthread_sleep(struct lpm_state *state)
{
	lpm_kthread_sleep_body(state);
}

lpm_patchable void lpm_spin(struct lpm_state *state)
{
	lpm_spin_body(state);
}

lpm_patchable const char *lpm_version(void)
{
	return "original";
}

static int lpm_sleeper_fn(void *unused)
{
	while (!kthread_should_stop()) {
		wait_event_interruptible(lpm_state.wait,
					 READ_ONCE(lpm_state.kthread_sleep) ||
					 kthread_should_stop());
		if (READ_ONCE(lpm_state.kthread_sleep))
			lpm_kthread_sleep(&lpm_state);
	}
	return 0;
}

static int lpm_spinner_fn(void *unused)
{
	while (!kthread_should_stop()) {
		wait_event_interruptible(lpm_state.wait,
					 READ_ONCE(lpm_state.spin) ||
					 kthread_should_stop());
		if (READ_ONCE(lpm_state.spin))
			lpm_spin(&lpm_state);
	}
	return 0;
}

static ssize_t lpm_hold_read(struct file *file, char __user *buffer,
			     size_t size, loff_t *position)
{
	return lpm_hold(&lpm_state);
}

static ssize_t lpm_flag_write(struct file *file, const char __user *buffer,
			      size_t size, loff_t *position)
{
	bool *flag = pde_data(file_inode(file));
	bool value;
	int error;

	error = kstrtobool_from_user(buffer, size, &value);
	if (error)
		return error;
	WRITE_ONCE(*flag, value);
	wake_up_all(&lpm_state.wait);
	return size;
}

static const struct proc_ops lpm_hold_ops = {
	.proc_read = lpm_hold_read,
	.proc_write = lpm_flag_write,
};

static const struct proc_ops lpm_flag_ops = {
	.proc_write = lpm_flag_write,
};

static int lpm_version_show(struct seq_file *file, void *unused)
{
	seq_printf(file, "%s\n", lpm_version());
	return 0;
}

static int lpm_status_show(struct seq_file *file, void *unused)
{
	seq_printf(file, "holders %d\nsleeping %d\nspinning %d\n",
		   atomic_read(&lpm_state.holders),
		   atomic_read(&lpm_state.sleeping),
		   atomic_read(&lpm_state.spinning));
	return 0;
}

static void lpm_release_all(void)
{
	WRITE_ONCE(lpm_state.hold, false);
	WRITE_ONCE(lpm_state.kthread_sleep, false);
	WRITE_ONCE(lpm_state.spin, false);
	wake_up_all(&lpm_state.wait);
}

static void lpm_stop(void)
{
	lpm_release_all();
	/* Waits for readers, which the line above has let go. */
	proc_remove(lpm_directory);
	if (!IS_ERR_OR_NULL(lpm_spinner))
		kthread_stop(lpm_spinner);
	if (!IS_ERR_OR_NULL(lpm_sleeper))
		kthread_stop(lpm_sleeper);
}

static int __init lpm_target_init(void)
{
	lpm_sleeper = kthread_run(lpm_sleeper_fn, NULL, "lpm_sleeper");
	lpm_spinner = kthread_run(lpm_spinner_fn, NULL, "lpm_spinner");
	if (IS_ERR(lpm_sleeper) || IS_ERR(lpm_spinner))
		goto fail;
	lpm_directory = proc_mkdir("lpm_target", NULL);
	if (!lpm_directory ||
	    !proc_create_data("hold", 0600, lpm_directory, &lpm_hold_ops,
			      &lpm_state.hold) ||
	    !proc_create_data("kthread_sleep", 0200, lpm_directory,
			      &lpm_flag_ops, &lpm_state.kthread_sleep) ||
	    !proc_create_data("spin", 0200, lpm_directory, &lpm_flag_ops,
			      &lpm_state.spin) ||
	    !proc_create_single("version", 0400, lpm_directory,
				lpm_version_show) ||
	    !proc_create_single("status", 0400, lpm_directory,
				lpm_status_show))
		goto fail;
	return 0;
fail:
	lpm_stop();
	return -ENOMEM;
}

static void __exit lpm_target_exit(void)
{
	lpm_stop();
}

module_init(lpm_target_init);
module_exit(lpm_target_exit);
MODULE_DESCRIPTION("Functions to livepatch, with tasks that stay in them");
MODULE_LICENSE("Dual MIT/GPL");
