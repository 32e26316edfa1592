// What this process and this machine are: memory, host, version, wall clock, Ctrl-C, standard streams.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

namespace mica {

// Largest resident set of this process so far, bytes (VmHWM on Linux: mapped pages count while they are
// resident).
uint64_t PeakResidentBytes();
// From now on PeakResidentBytes() counts anew, from what is resident now (Linux; elsewhere nothing happens),
// so that each stage of a run in one process reports its own peak.
void ResetPeakResidentBytes();
// Memory this process may still take, bytes (MemAvailable, or the control group's limit when that is lower).
uint64_t AvailableMemoryBytes();
// Whether the address space, which may be limited (ulimit -v), has room for so many bytes more. Calls the
// system alone, so that it may be asked before main().
bool HasAddressSpace(size_t bytes);
// Throws std::bad_alloc unless it has: asked before libraries are called that do not notice that they were
// given no memory.
void RequireAddressSpace(size_t bytes);

// From now on what is freed stays with the process for the next matrix of its size, up to some hundred MB
// (glibc; elsewhere nothing happens): pages that come and go are cleared by one thread while all others wait.
void KeepFreedMemory();

std::string HostName();
// "AMD EPYC, 2 processors".
std::string ProcessorName();
// "0.1.0".
std::string Version();
// First 12 digits of the git commit this was configured from, or "unknown".
std::string Commit();
// "2026-11-22T18:47:54Z".
std::string UtcTime();
// Seconds on a clock that never goes back.
double MonotonicSeconds();

// The first thing a program does. Opens the standard descriptors that are closed on /dev/null, so that no
// file of ours becomes one of them; reading that stdin and writing that stdout fails as if it were closed.
// From now on a reader that is gone and a limit of file sizes are errors of the write instead of signals.
void PrepareStreams();

// From now on SIGINT and SIGTERM only raise a flag; a second signal ends the process at once.
void CatchInterrupts();
bool InterruptRequested();
// What SIGINT interrupted has ended, and the program goes on; other signals stay.
void ForgetInterrupt();
// Throws Interrupted once a signal has come; long loops call it between steps.
void ThrowIfInterrupted();

}  // namespace mica
