// SPDX-License-Identifier: MIT OR GPL-2.0
#define LPM_REPLACE false
#include "lpm_patch_everything.h"
MODULE_DESCRIPTION("A livepatch of lpm_target, lpm_late and the kernel image");
