/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* What compiler and verifier have to be told. */
#pragma once

/*
 * A global function: the verifier looks at it once, knowing nothing of its arguments, instead of at each call (kernel 5.6).
 * It returns a number. What its pointers point to is plain memory, which kernels before 6.2 do not take for the key of a map: the
 * leaf functions of maps.h do.
 */
#define GLOBAL __attribute__((noinline))

/*
 * The stack: 512 bytes for all frames of a chain of calls together. Kernel 6.1 rounds each up to 32 bytes, and then
 * pod_egress, pod_egress6, admit and ct_admits fill it, as do the first two with send_learned and address_diff.
 */

/* The compiler keeps no value over this line. */
#define barrier() asm volatile("" ::: "memory")

/*
 * Stands between what is read of a slot and the look whether the slot has changed meanwhile: nothing is read later. A test
 * has it change here.
 */
#ifndef slot_was_read
#define slot_was_read(slot, where) barrier()
#endif
