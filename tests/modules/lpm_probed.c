// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * A livepatch of a function that monitors probe: both must work together.
 * Forcing does nothing while it is enabled.
 */
#include <linux/kernel.h>
#include <linux/livepatch.h>
#include <linux/module.h>

static void livepatch_function(void)
{
	pr_info("lpm_probed: forcing is switched off\n");
}

#define LPM_OLD "klp_force_transition"
#include "lpm_patch_function.h"
MODULE_DESCRIPTION("A livepatch of klp_force_transition");
