// SPDX-License-Identifier: MIT OR GPL-2.0
/* getpgid() of a process fails with EXDEV, which it never does by itself. */
#include <linux/errno.h>
#include <linux/kernel.h>
#include <linux/livepatch.h>
#include <linux/module.h>
#include <linux/sched.h>

static int livepatch_function(struct task_struct *task)
{
	return -EXDEV;
}

#define LPM_OLD "security_task_getpgid"
#include "lpm_patch_function.h"
MODULE_DESCRIPTION("A livepatch of a function that fmod_ret programs may override");
