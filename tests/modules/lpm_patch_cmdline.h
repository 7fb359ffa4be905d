/* SPDX-License-Identifier: MIT OR GPL-2.0 */
/* A livepatch of what /proc/cmdline shows: a function that nobody sleeps in. */
#include <linux/kernel.h>
#include <linux/livepatch.h>
#include <linux/module.h>
#include <linux/seq_file.h>

static int livepatch_function(struct seq_file *file, void *unused)
{
	seq_puts(file, "patched by " KBUILD_MODNAME "\n");
	return 0;
}

#define LPM_OLD "cmdline_proc_show"
#include "lpm_patch_function.h"
