// SPDX-License-Identifier: MIT OR GPL-2.0
/* A livepatch whose replacement of /proc/cmdline's function dereferences NULL. */
#include <linux/kernel.h>
#include <linux/livepatch.h>
#include <linux/module.h>
#include <linux/seq_file.h>

static int __attribute__((__noipa__)) livepatch_function(struct seq_file *file, void *unused)
{
	*(volatile int *)unused = 1;
	*(volatile int *)NULL = 1;
	return 0;
}

#define LPM_OLD "cmdline_proc_show"
#include "lpm_patch_function.h"
