// Set-up of the suites that send real packets: a spec that fails is tried once more, its first error is printed, and the
// summary names it. Their limits are wall-clock times on machines that do other things, too.
import { jest } from '@jest/globals';

jest.retryTimes(1, { logErrorsBeforeRetry: true });
