/* SPDX-License-Identifier: Apache-2.0
 * A stand-in behind model/model.h for the tests of the trainer: a smooth loss whose gradient touches many
 * parameters, expert loads that follow from the tokens, and a loss that is NaN for sequences that hold
 * FAKE_POISON. Cheap, so that many runs fit in a test. */
#ifndef AP_TESTS_FAKE_MODEL_H
#define AP_TESTS_FAKE_MODEL_H

#define FAKE_POISON 271 /* a token id below the vocabulary of tiny-v3 that bytes never give */

#endif
