/* SPDX-License-Identifier: MIT OR GPL-2.0 */
/*
 * What lpm_target shares with the livepatches made for it: the state that every
 * patched function gets as its argument, and the bodies that the old function
 * and all replacements have in common. A livepatch cannot refer to symbols of
 * lpm_target: it may be loaded before it.
 */
#ifndef LPM_TARGET_H
#define LPM_TARGET_H

#include <linux/atomic.h>
#include <linux/sched.h>
#include <linux/types.h>
#include <linux/wait.h>

struct lpm_state {
	wait_queue_head_t wait;
	bool hold;		/* lpm_hold() sleeps while set */
	bool kthread_sleep;	/* lpm_kthread_sleep() sleeps while set */
	bool spin;		/* lpm_spin() spins while set */
	atomic_t holders;	/* tasks inside lpm_hold() */
	atomic_t sleeping;	/* 1 while the kthread is inside lpm_kthread_sleep() */
	atomic_t spinning;	/* 1 while the kthread is inside lpm_spin() */
};

/*
 * Neither inlined, cloned nor specialised: the symbol that a livepatch names is
 * the code that runs.
 */
#define lpm_patchable __attribute__((__noipa__))

/*
 * Killable and not interruptible: the signal that livepatch fakes after 15
 * attempts must not end the sleep, kill -9 must.
 */
static __always_inline int lpm_hold_body(struct lpm_state *state)
{
	int error;

	atomic_inc(&state->holders);
	error = wait_event_killable(state->wait, !READ_ONCE(state->hold));
	atomic_dec(&state->holders);
	return error;
}

/* A kthread that no signal reaches. */
static __always_inline void lpm_kthread_sleep_body(struct lpm_state *state)
{
	atomic_inc(&state->sleeping);
	wait_event(state->wait, !READ_ONCE(state->kthread_sleep));
	atomic_dec(&state->sleeping);
}

/*
 * Always on a CPU or ready for one. cond_resched() keeps the machine alive.
 * In some kernels (6.12 is one) livepatch also tries to switch such a task there;
 * that fails here because the function itself is on the stack.
 */
static __always_inline void lpm_spin_body(struct lpm_state *state)
{
	atomic_inc(&state->spinning);
	while (READ_ONCE(state->spin)) {
		cpu_relax();
		cond_resched();
	}
	atomic_dec(&state->spinning);
}

#endif
