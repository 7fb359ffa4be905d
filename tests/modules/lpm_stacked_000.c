// SPDX-License-Identifier: MIT OR GPL-2.0
/* Loaded many times, each time with another number in its name. */
#include "lpm_patch_cmdline.h"
MODULE_DESCRIPTION("One of many livepatches of the same function");
