// Set-up of the suites that send real packets: a spec that fails is tried once more, its first error is printed, and the
// summary names it. Their limits are wall-clock times on machines that do other things, too.
import { jest } from '@jest/globals';

// At once, because later specs of a file may take down what the earlier ones need.
jest.retryTimes(1, { logErrorsBeforeRetry: true, retryImmediately: true });
