// SPDX-License-Identifier: MIT OR GPL-2.0
/* A plain callback of ftrace that only counts: it redirects nothing. */
#include <linux/ftrace.h>
#include <linux/module.h>
#include <linux/version.h>

static unsigned long hits;
module_param(hits, ulong, 0444);
MODULE_PARM_DESC(hits, "How often it was called");

#if LINUX_VERSION_CODE < KERNEL_VERSION(5, 11, 0)
#define ftrace_regs pt_regs
#endif

static void notrace lpm_ftrace_called(unsigned long ip, unsigned long parent_ip,
				      struct ftrace_ops *ops,
				      struct ftrace_regs *registers)
{
	hits++;
}

static struct ftrace_ops lpm_ftrace_ops = {
	.func = lpm_ftrace_called,
};

static int __init lpm_ftrace_init(void)
{
	char name[] = "cmdline_proc_show";
	int result = ftrace_set_filter(&lpm_ftrace_ops, name, sizeof(name) - 1, 1);

	return result ?: register_ftrace_function(&lpm_ftrace_ops);
}

static void __exit lpm_ftrace_exit(void)
{
	unregister_ftrace_function(&lpm_ftrace_ops);
}

module_init(lpm_ftrace_init);
module_exit(lpm_ftrace_exit);
MODULE_DESCRIPTION("Somebody who looks on at a function that a livepatch wants");
MODULE_LICENSE("Dual MIT/GPL");
