// SPDX-License-Identifier: MIT OR GPL-2.0
#include "lpm_patch_cmdline.h"
MODULE_DESCRIPTION("The one that comes while another one is in transition");
