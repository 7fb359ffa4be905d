// SPDX-License-Identifier: MIT OR GPL-2.0
/* A livepatch whose pre-patch callback says no. */
#include <linux/errno.h>
#include <linux/livepatch.h>

static int refuse(struct klp_object *object)
{
	return -ENODEV;
}

#define LPM_PRE_PATCH refuse
#include "lpm_patch_cmdline.h"
MODULE_DESCRIPTION("A livepatch that is cancelled while it is being enabled");
