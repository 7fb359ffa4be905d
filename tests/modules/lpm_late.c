// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * A second module to patch, loaded while its livepatch is already there.
 *
 * /proc/lpm_late  read: who answers, the original or a livepatch
 */
#include <linux/module.h>
#include <linux/proc_fs.h>
#include <linux/seq_file.h>

#include "lpm_target.h"

const char *lpm_late_version(void);

lpm_patchable const char *lpm_late_version(void)
{
	return "original";
}

static int lpm_late_show(struct seq_file *file, void *unused)
{
	seq_printf(file, "%s\n", lpm_late_version());
	return 0;
}

static int __init lpm_late_init(void)
{
	return proc_create_single("lpm_late", 0400, NULL, lpm_late_show) ?
		       0 :
		       -ENOMEM;
}

static void __exit lpm_late_exit(void)
{
	remove_proc_entry("lpm_late", NULL);
}

module_init(lpm_late_init);
module_exit(lpm_late_exit);
MODULE_DESCRIPTION("A module that is loaded after its livepatch");
MODULE_LICENSE("Dual MIT/GPL");
