// SPDX-License-Identifier: MIT OR GPL-2.0
#define LPM_REPLACE false
#include "lpm_patch_everything.h"
MODULE_DESCRIPTION("The one whose removal is forced: it stays in the kernel for good");
