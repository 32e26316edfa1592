// One pool of threads for the whole program, shared with the linear algebra libraries.
#pragma once

#include <cstddef>
#include <functional>

namespace mica {

// Sets the number of threads; 0 means one per processor this process may run on. Throws Error above 1024.
void SetThreads(int threads);
int Threads();

// Calls body(index) for every index in [0, count), spread over the threads; indices are handed out in rising
// order. Which thread runs an index is not fixed, so a body must write only what belongs to its index: then
// the result does not depend on the number of threads. The first exception thrown by a body is rethrown here
// after all threads have stopped; the remaining indices are skipped. A nested call runs its loop on the
// calling thread.
void ParallelFor(size_t count, const std::function<void(size_t index)>& body);

}  // namespace mica
