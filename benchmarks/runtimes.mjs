// One ONNX file in ONNX Runtime for Node, or in its WebAssembly form for browsers.
// node benchmarks/runtimes.mjs PACKAGE FILE DIRECTORY, started by benchmarks/runtimes.py.
import fs from "node:fs";
import { createRequire } from "node:module";
import path from "node:path";

const [name, file, directory] = process.argv.slice(2);
const ort = createRequire(path.join(name, "/"))(name);
if (name.endsWith("web")) ort.env.wasm.numThreads = 1;
const options = { intraOpNumThreads: 1, executionProviders: [name.endsWith("web") ? "wasm" : "cpu"] };
const session = await ort.InferenceSession.create(fs.readFileSync(file), options);
const times = [];
const inputs = JSON.parse(fs.readFileSync(path.join(directory, "inputs.json")));
for (const [index, { shape, size }] of inputs.entries()) {
  const bytes = new Uint8Array(fs.readFileSync(path.join(directory, `${index}.bin`)));
  const feeds = { images: new ort.Tensor("uint8", bytes, shape) };
  if (size) feeds.size = new ort.Tensor("int64", BigInt64Array.from(size.map(BigInt)), [2]);
  const started = performance.now();
  const output = (await session.run(feeds))[session.outputNames[0]];
  times.push(performance.now() - started);
  let labels = output.data;
  if (output.dims.length === 4) {
    const pixels = output.dims[2] * output.dims[3];
    labels = new Uint8Array(pixels);
    for (let pixel = 0; pixel < pixels; pixel++)
      for (let label = 1; label < output.dims[1]; label++)
        if (output.data[label * pixels + pixel] > output.data[labels[pixel] * pixels + pixel])
          labels[pixel] = label;
  }
  fs.writeFileSync(path.join(directory, `${index}.labels`), labels);
}
fs.writeFileSync(path.join(directory, "times.json"), JSON.stringify(times));
process.exit(0);
