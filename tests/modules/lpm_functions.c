// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * A livepatch of so many functions of lpm_many as the parameter says, and of
 * lpm_target's lpm_hold, by which it can be held up.
 */
#include <linux/kernel.h>
#include <linux/livepatch.h>
#include <linux/module.h>

#include "lpm_target.h"

#define MOST 1000

static int count = 1;
module_param(count, int, 0444);

static char names[MOST][16];
static struct klp_func many[MOST + 1];

static lpm_patchable int livepatch_many(void)
{
	return 0;
}

static lpm_patchable int livepatch_hold(struct lpm_state *state)
{
	return lpm_hold_body(state);
}

static struct klp_func hold[] = {
	{ .old_name = "lpm_hold", .new_func = livepatch_hold },
	{}
};

static struct klp_object objects[] = {
	{ .name = "lpm_many", .funcs = many },
	{ .name = "lpm_target", .funcs = hold },
	{}
};

static struct klp_patch patch = {
	.mod = THIS_MODULE,
	.objs = objects,
};

static int __init livepatch_init(void)
{
	int i;

	if (count < 1 || count > MOST)
		return -EINVAL;
	for (i = 0; i < count; i++) {
		snprintf(names[i], sizeof(names[i]), "lpm_many_%03d", i);
		many[i].old_name = names[i];
		many[i].new_func = livepatch_many;
	}
	return klp_enable_patch(&patch);
}

static void __exit livepatch_exit(void)
{
}

module_init(livepatch_init);
module_exit(livepatch_exit);
MODULE_DESCRIPTION("A livepatch of as many functions as one likes");
MODULE_LICENSE("Dual MIT/GPL");
MODULE_INFO(livepatch, "Y");
MODULE_VERSION("1");
