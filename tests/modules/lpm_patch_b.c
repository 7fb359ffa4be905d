// SPDX-License-Identifier: MIT OR GPL-2.0
#define LPM_REPLACE false
#include "lpm_patch_everything.h"
MODULE_DESCRIPTION("The same functions again, to stack on top of lpm_patch_a");
