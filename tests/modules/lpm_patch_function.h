/* SPDX-License-Identifier: MIT OR GPL-2.0 */
/*
 * The end of a livepatch of one function of the kernel image. The file that
 * includes this defines LPM_OLD, the function's name, and livepatch_function(),
 * and may define LPM_PRE_PATCH, a callback.
 */
#ifndef LPM_PRE_PATCH
#define LPM_PRE_PATCH NULL
#endif

static struct klp_func functions[] = {
	{ .old_name = LPM_OLD, .new_func = livepatch_function },
	{}
};

static struct klp_object objects[] = {
	{ .funcs = functions, .callbacks = { .pre_patch = LPM_PRE_PATCH } },
	{}
};

static struct klp_patch patch = {
	.mod = THIS_MODULE,
	.objs = objects,
};

static int __init livepatch_init(void)
{
	return klp_enable_patch(&patch);
}

static void __exit livepatch_exit(void)
{
}

module_init(livepatch_init);
module_exit(livepatch_exit);
MODULE_LICENSE("Dual MIT/GPL");
MODULE_INFO(livepatch, "Y");
/* With a version comes a srcversion, the fingerprint that monitors show. */
MODULE_VERSION("1");
