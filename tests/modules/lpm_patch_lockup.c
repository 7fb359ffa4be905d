// SPDX-License-Identifier: MIT OR GPL-2.0
/* A livepatch whose init locks a CPU up before it enables anything. */
#include <linux/kernel.h>
#include <linux/livepatch.h>
#include <linux/module.h>
#include <linux/preempt.h>

static int __init livepatch_init(void)
{
	preempt_disable();
	for (;;)
		cpu_relax();
	return -EINVAL;
}

static void __exit livepatch_exit(void)
{
}

module_init(livepatch_init);
module_exit(livepatch_exit);
MODULE_LICENSE("Dual MIT/GPL");
MODULE_INFO(livepatch, "Y");
MODULE_VERSION("1");
