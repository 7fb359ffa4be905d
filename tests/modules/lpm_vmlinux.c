// SPDX-License-Identifier: MIT OR GPL-2.0
#include "lpm_patch_cmdline.h"
MODULE_DESCRIPTION("The clean case: nothing holds it");
