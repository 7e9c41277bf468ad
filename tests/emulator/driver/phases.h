// Barriers that count threads and bytes, and the tiles that they count.
#pragma once
#include "block.h"

namespace model {

// A tile comes in: its bytes are there, and its barrier counts them. Called by the scheduler, between threads.
void bring_in(Block& block, const Tile& tile);

}  // namespace model
