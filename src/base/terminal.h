// What the terminal behind a stream can do, and the one line on it that is drawn over and over.
#pragma once

#include <cstddef>

namespace mica {

// Whether the cursor behind the descriptor can be moved: it is a terminal, and not a "dumb" one (TERM).
bool MovesCursor(int descriptor);
// The same, and the person there has not refused colours (NO_COLOR).
bool TakesColours(int descriptor);
// Columns of the terminal behind the descriptor, at least 20: its own word, or else COLUMNS of the
// environment; `otherwise` where neither says or there is no terminal.
size_t TerminalColumns(int descriptor, size_t otherwise);

// A line on stderr that the next one will be drawn over is open. Whoever else writes to stderr wipes it
// first.
void SetOpenLine(bool open);
void WipeOpenLine();

}  // namespace mica
