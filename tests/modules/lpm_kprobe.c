// SPDX-License-Identifier: MIT OR GPL-2.0
/* A kprobe with a post-handler: no livepatch can be put on its function. */
#include <linux/kprobes.h>
#include <linux/module.h>

static void lpm_kprobe_post(struct kprobe *probe, struct pt_regs *registers,
			    unsigned long flags)
{
}

static struct kprobe lpm_kprobe = {
	.symbol_name = "cmdline_proc_show",
	.post_handler = lpm_kprobe_post,
};

static int __init lpm_kprobe_init(void)
{
	return register_kprobe(&lpm_kprobe);
}

static void __exit lpm_kprobe_exit(void)
{
	unregister_kprobe(&lpm_kprobe);
}

module_init(lpm_kprobe_init);
module_exit(lpm_kprobe_exit);
MODULE_DESCRIPTION("Somebody who may redirect a function that a livepatch wants");
MODULE_LICENSE("Dual MIT/GPL");
