// SPDX-License-Identifier: MIT OR GPL-2.0
/* A thousand functions to livepatch, lpm_many_000 to lpm_many_999; nothing calls them. */
#include <linux/module.h>

#define ONE(n) \
	int lpm_many_##n(void); \
	int __attribute__((__noipa__)) lpm_many_##n(void) { return 1##n; }
#define TEN(n) \
	ONE(n##0) ONE(n##1) ONE(n##2) ONE(n##3) ONE(n##4) \
	ONE(n##5) ONE(n##6) ONE(n##7) ONE(n##8) ONE(n##9)
#define HUNDRED(n) \
	TEN(n##0) TEN(n##1) TEN(n##2) TEN(n##3) TEN(n##4) \
	TEN(n##5) TEN(n##6) TEN(n##7) TEN(n##8) TEN(n##9)

HUNDRED(0) HUNDRED(1) HUNDRED(2) HUNDRED(3) HUNDRED(4)
HUNDRED(5) HUNDRED(6) HUNDRED(7) HUNDRED(8) HUNDRED(9)

static int __init lpm_many_init(void)
{
	return 0;
}

static void __exit lpm_many_exit(void)
{
}

module_init(lpm_many_init);
module_exit(lpm_many_exit);
MODULE_DESCRIPTION("A thousand functions to livepatch");
MODULE_LICENSE("Dual MIT/GPL");
