// SPDX-License-Identifier: MIT OR GPL-2.0
#define LPM_REPLACE true
#include "lpm_patch_everything.h"
MODULE_DESCRIPTION("The same functions again, replacing all other livepatches");
