// What transformers.js makes of one bundle, as JSON.
// In, as JSON on standard input: models (a folder), bundle (the name of one in it), dtype, texts,
//   pixel_values {data, dims}, picture {data, width, height} with RGB bytes.
// Out: input_ids, attention_mask, text_embeds, image_embeds (of pixel_values), processed (pixel_values that the
//   bundle's own processor makes of the picture), picture_embeds.
import { readFileSync } from "node:fs";
import {
  AutoProcessor,
  AutoTokenizer,
  CLIPTextModelWithProjection,
  CLIPVisionModelWithProjection,
  RawImage,
  Tensor,
  env,
} from "@huggingface/transformers";

const { models, bundle, dtype, texts, pixel_values, picture } = JSON.parse(readFileSync(0, "utf-8"));
env.localModelPath = models;
env.allowRemoteModels = false;

const tokenizer = await AutoTokenizer.from_pretrained(bundle);
const processor = await AutoProcessor.from_pretrained(bundle);
// as in miniclip/inference/providers.py: on a CPU without VNNI, 8-bit products would overflow
const session_options = { extra: { session: { x64quantprecision: "1" } } };
const options = { dtype, device: "cpu", session_options };
const textModel = await CLIPTextModelWithProjection.from_pretrained(bundle, options);
const visionModel = await CLIPVisionModelWithProjection.from_pretrained(bundle, options);

const tokens = tokenizer(texts, { padding: true, truncation: true });
const { text_embeds } = await textModel(tokens);
const pixels = new Tensor("float32", Float32Array.from(pixel_values.data), pixel_values.dims);
const { image_embeds } = await visionModel({ pixel_values: pixels });
const processed = await processor(new RawImage(Uint8ClampedArray.from(picture.data), picture.width, picture.height, 3));
const { image_embeds: picture_embeds } = await visionModel(processed);

const integers = (tensor) => tensor.tolist().map((row) => row.map(Number)); // JSON has no BigInt
const answer = {
  input_ids: integers(tokens.input_ids),
  attention_mask: integers(tokens.attention_mask),
  text_embeds: text_embeds.tolist(),
  image_embeds: image_embeds.tolist(),
  processed: processed.pixel_values.tolist(),
  picture_embeds: picture_embeds.tolist(),
};
process.stdout.write(JSON.stringify(answer));
