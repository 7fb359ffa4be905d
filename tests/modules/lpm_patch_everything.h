/* SPDX-License-Identifier: MIT OR GPL-2.0 */
/*
 * The body of a livepatch that replaces every patchable function of lpm_target
 * and lpm_late, and one of the kernel image. Its replacements can be slept in
 * as well, so that an unpatch or a patch on top can be held.
 *
 * The file that includes this defines LPM_REPLACE.
 */
#include <linux/kernel.h>
#include <linux/livepatch.h>
#include <linux/module.h>
#include <linux/seq_file.h>

#include "lpm_target.h"

static lpm_patchable int livepatch_hold(struct lpm_state *state)
{
	return lpm_hold_body(state);
}

static lpm_patchable void livepatch_kthread_sleep(struct lpm_state *state)
{
	lpm_kthread_sleep_body(state);
}

static lpm_patchable void livepatch_spin(struct lpm_state *state)
{
	lpm_spin_body(state);
}

static lpm_patchable const char *livepatch_version(void)
{
	return "patched by " KBUILD_MODNAME;
}

static lpm_patchable int livepatch_cmdline_proc_show(struct seq_file *file,
						     void *unused)
{
	seq_puts(file, "patched by " KBUILD_MODNAME "\n");
	return 0;
}

static struct klp_func vmlinux_functions[] = {
	{
		.old_name = "cmdline_proc_show",
		.new_func = livepatch_cmdline_proc_show,
	},
	{}
};

static struct klp_func target_functions[] = {
	{ .old_name = "lpm_hold", .new_func = livepatch_hold },
	{
		.old_name = "lpm_kthread_sleep",
		.new_func = livepatch_kthread_sleep,
	},
	{ .old_name = "lpm_spin", .new_func = livepatch_spin },
	{ .old_name = "lpm_version", .new_func = livepatch_version },
	{}
};

static struct klp_func late_functions[] = {
	{ .old_name = "lpm_late_version", .new_func = livepatch_version },
	{}
};

static struct klp_object objects[] = {
	{ .funcs = vmlinux_functions },
	{ .name = "lpm_target", .funcs = target_functions },
	{ .name = "lpm_late", .funcs = late_functions },
	{}
};

static struct klp_patch patch = {
	.mod = THIS_MODULE,
	.objs = objects,
	.replace = LPM_REPLACE,
};

static int __init livepatch_init(void)
{
	return klp_enable_patch(&patch);
}

static void __exit livepatch_exit(void)
{
}

module_init(livepatch_init);
module_exit(livepatch_exit);
MODULE_LICENSE("Dual MIT/GPL");
MODULE_INFO(livepatch, "Y");
/* With a version comes a srcversion, the fingerprint that monitors show. */
MODULE_VERSION("1");
