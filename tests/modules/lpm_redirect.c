// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * A kprobe without a post-handler that redirects its function, as a BPF program
 * does with bpf_override_return: the kernel does not know that it will, and admits
 * it beside a livepatch.
 */
#include <linux/errno.h>
#include <linux/kprobes.h>
#include <linux/module.h>

static int noinline notrace lpm_redirect_instead(void)
{
	return -ENODATA;
}

static int notrace lpm_redirect_before(struct kprobe *probe,
				       struct pt_regs *registers)
{
	instruction_pointer_set(registers, (unsigned long)lpm_redirect_instead);
	return 1;
}

static struct kprobe lpm_redirect = {
	.symbol_name = "cmdline_proc_show",
	.pre_handler = lpm_redirect_before,
};

static int __init lpm_redirect_init(void)
{
	return register_kprobe(&lpm_redirect);
}

static void __exit lpm_redirect_exit(void)
{
	unregister_kprobe(&lpm_redirect);
}

module_init(lpm_redirect_init);
module_exit(lpm_redirect_exit);
MODULE_DESCRIPTION("Somebody who redirects a function without the kernel's knowledge");
MODULE_LICENSE("Dual MIT/GPL");
