#include "eval/report/strings.h"

#include "base/error.h"

namespace mica {
namespace {

constexpr ReportString kStrings[] = {
    {"title", "Compression report", "压缩报告"},
    {"not_measured", "not measured", "未测量"},
    {"not_recorded", "-", "—"},
    {"footing", "mica {0} ({1}), {2}", "由 mica {0}（{1}）生成，{2}"},

    // One line at the top, by what is known.
    {"summary.full", "{0:.2f} times smaller on disk; the worst set ({1}) keeps {2}: {3}",
     "磁盘体积缩小为 1/{0:.2f}；最差的数据集（{1}）保留率 {2}：{3}"},
    {"summary.quality", "The worst set ({0}) keeps {1}: {2}", "最差的数据集（{0}）保留率 {1}：{2}"},
    {"summary.nothing", "No set was measured on both sides, so nothing can be said of the quality",
     "没有任何数据集在两侧都测量过，无法判断质量"},

    {"section.configuration", "Configuration", "配置"},
    {"section.quality", "Perplexity", "困惑度"},
    {"section.samples", "Samples", "生成样例"},
    {"section.compression", "Compression", "压缩"},
    {"section.cost", "Cost", "开销"},
    {"section.verdict", "Verdict", "结论"},
    {"section.advice", "What to try next", "下一步建议"},

    {"warning.differences", "Compared by force although the two were not measured alike: {0}",
     "两个结果的测量条件不同，按 --force 强制比较：{0}"},

    {"column.item", "item", "项目"},
    {"column.baseline", "baseline", "基线"},
    {"column.compressed", "compressed", "压缩后"},
    {"column.value", "value", "值"},
    {"column.set", "set", "数据集"},
    {"column.change", "change", "变化"},
    {"column.retention", "retention", "保留率"},
    {"column.occurrences", "occurrences", "出现次数"},
    {"column.tokens", "tokens", "token 占比"},
    {"column.baseline_nats", "baseline nats", "基线 (nat)"},
    {"column.loss_share", "share of loss", "损失占比"},
    {"classes.caption", "Which tokens the loss falls on, by how often a token occurs in the text",
     "损失落在哪些 token 上（按 token 在文本中的出现次数）"},
    {"column.excess", "excess nats", "超额损失 (nat)"},
    {"column.kl", "KL divergence, nats", "KL 散度 (nat)"},
    {"column.same_top", "same top token", "首选 token 一致"},
    {"divergence.caption", "How far the predictions have moved, token by token", "逐 token 预测的偏移"},
    {"column.rating", "rating", "评级"},
    {"column.part", "part", "组成"},
    {"column.bytes", "bytes", "字节"},
    {"column.share", "share", "占比"},
    {"column.bits_per_weight", "bits/weight", "比特/权重"},
    {"column.phase", "phase", "阶段"},
    {"column.seconds", "seconds", "秒"},
    {"column.layers", "layers", "层"},
    {"column.type", "linear layer", "线性层"},
    {"column.mean_bits", "mean bits", "平均位宽"},
    {"column.zeros", "zeros", "零值"},
    {"column.information", "information, nats", "互信息 (nat)"},
    {"column.silhouette", "silhouette", "轮廓系数"},
    {"column.error", "relative error", "相对误差"},
    {"column.stored_types", "matrices by stored type", "各存储类型的矩阵数"},

    {"config.file", "result file", "结果文件"},
    {"config.model", "model", "模型"},
    {"config.architecture", "architecture", "架构"},
    {"config.architecture.value", "{0}, {1} layers, hidden {2}", "{0}，{1} 层，隐藏维度 {2}"},
    {"config.parameters", "parameters", "参数量"},
    {"config.fingerprint", "fingerprint", "指纹"},
    {"config.layout", "files", "文件格式"},
    {"config.convention", "convention", "测量约定"},
    {"config.bos", "beginning of text (BOS)", "文本起始符 (BOS)"},
    {"config.seqlen", "window, tokens", "窗口（token）"},
    {"config.dtype", "arithmetic", "计算精度"},
    {"config.threads", "threads", "线程数"},
    {"config.host", "host", "主机"},
    {"config.processor", "processor", "处理器"},
    {"config.version", "program", "程序版本"},
    {"config.created", "measured", "测量时间"},
    {"bos.text", "in front of the text", "文本开头一个"},
    {"bos.window", "in each window", "每个窗口开头"},
    {"bos.none", "none", "无"},

    {"settings.caption", "How the model was compressed", "压缩设置"},
    {"settings.method", "method", "方法"},
    {"settings.budget.bits", "{0:g} mean code bits", "平均编码位宽 {0:g} 比特"},
    {"settings.budget.bpw", "{0:g} stored bits per weight", "每权重存储 {0:g} 比特"},
    {"settings.budget.size", "{0:.0f} bytes", "{0:.0f} 字节"},
    {"settings.groups.auto", "by silhouette", "由轮廓系数决定"},
    {"settings.calibration", "calibration text", "校准文本"},
    {"settings.calibration.built_in", "built-in", "内置文本"},
    {"settings.samples", "calibration samples", "校准样本"},
    {"settings.samples.value", "{0:.0f} windows of {1:.0f} tokens", "{0:.0f} 个窗口，每个 {1:.0f} token"},
    {"settings.bos", "BOS in calibration windows", "校准窗口的起始符 (BOS)"},

    {"quality.chart", "Perplexity (shorter is better)", "困惑度（越短越好）"},
    {"quality.bar.baseline", "{0}, baseline", "{0}，基线"},
    {"quality.bar.compressed", "{0}, compressed", "{0}，压缩后"},
    {"quality.retention.chart", "Retention, percent", "保留率（%）"},
    {"quality.formula",
     "Retention = 100 (1 - (PPL - PPL of the baseline) / PPL of the baseline); below 0 when the perplexity "
     "more than doubles, ≤ where it is a thousandfold. "
     "Excess nats = ln(PPL / PPL of the baseline), with the standard error over windows. Rating, of "
     "retention as it stands here: 5 stars from 95 %, 4 from 90 %, 3 from 85 %, else "
     "2.",
     "保留率 = 100 (1 - (PPL - 基线 PPL) / 基线 PPL)，困惑度超过基线两倍时为负，达到千倍时以 ≤ "
     "标出。超额损失 = ln(PPL / 基线 "
     "PPL)，附各窗口间的标准误。"
     "评级按此处显示的保留率：95 % 起五星，90 % 起四星，85 % 起三星，其余两星。"},
    {"quality.error", "{0}: {1} could not be measured ({2})", "{0}：{1}未能测量（{2}）"},

    {"samples.skipped", "No samples were taken: {0}", "未生成样例：{0}"},
    {"samples.summary",
     "{0} prompts, continued by both models with the likeliest token each time, at most {1} tokens; {2} of them "
     "the same to the end. ▸ marks where the two part.",
     "{0} 个提示由两个模型各自续写（每步取最可能的 token，最多 {1} 个）：{2} 个完全相同。▸ 标出两者开始不同之处。"},
    {"samples.kl",
     "On the average the prediction of a token of the original's continuation has moved by {0:.4f} nats (KL "
     "divergence of the compressed model from the original).",
     "沿原模型的续写，每个 token 的预测平均偏移 {0:.4f} nat（压缩模型相对原模型的 KL 散度）。"},
    {"samples.shades", "Shading: by how much the prediction of a token has moved, nats",
     "底色：该 token 的预测偏移了多少 (nat)"},
    {"samples.shade.less", "less than {0:g}", "小于 {0:g}"},
    {"samples.shade.between", "{0:g} to {1:g}", "{0:g} 到 {1:g}"},
    {"samples.shade.more", "{0:g} and more", "{0:g} 及以上"},
    {"samples.nats", "{0:.2f} nats", "偏移 {0:.2f} nat"},
    {"samples.parting", "{0} ({1}): they part at token {2}", "{0}（{1}）：从第 {2} 个 token 起不同"},
    {"samples.same", "{0} ({1}): the same {2} tokens", "{0}（{1}）：{2} 个 token 完全相同"},
    {"samples.given", "given", "指定的提示"},
    {"samples.prompt", "prompt", "提示"},
    {"samples.original", "original", "原模型"},
    {"samples.ended", "the text ends here", "文本在此结束"},
    {"lost.caption", "The tokens that lost most, ▸ in front of each, with the text before them",
     "损失最大的 token（▸ 之后），附其前文"},
    {"column.in_context", "text", "文本"},
    {"column.original_nats", "original nats", "原模型 (nat)"},
    {"column.compressed_nats", "compressed nats", "压缩后 (nat)"},
    {"column.lost_nats", "lost", "损失 (nat)"},

    {"compression.none",
     "The compressed result has no compression facts (it is of a plain model, or of another program), so no "
     "size, ratio or "
     "bits per weight is claimed.",
     "压缩结果中没有压缩记录（普通模型，或由其他程序生成），因此不给出体积、压缩比和每权重比特数。"},
    {"compression.sizes", "Bytes on disk and bits per weight", "磁盘字节数与每权重比特数"},
    {"compression.before", "weight files before", "压缩前权重文件"},
    {"compression.after", "weight files after", "压缩后权重文件"},
    {"compression.ratio", "ratio, bytes over bytes", "压缩比（字节比字节）"},
    {"compression.ratio.value", "{0:.2f}", "{0:.2f}"},
    {"compression.mean_code_bits", "mean code bits of the compressed matrices", "压缩矩阵的平均编码位宽"},
    {"compression.bits_per_weight", "all stored bits per compressed weight", "每个压缩权重的全部存储比特"},
    {"compression.weights", "weights in compressed matrices", "压缩矩阵中的权重数"},
    {"compression.zeros", "zeros among them", "其中零值"},
    {"compression.parts", "Where the bytes are", "字节构成"},
    {"compression.widths", "Widths of all compressed weights", "全部压缩权重的位宽分布"},
    {"compression.widths.all", "all", "全部"},
    {"compression.by_type", "Widths by kind of linear layer", "按线性层类型的位宽分布"},
    {"compression.by_depth", "Widths by depth (layers)", "按深度（层）的位宽分布"},
    {"compression.types", "Types in the other program's format", "目标格式中的类型"},
    {"compression.mean_by_type", "Mean code bits by kind of linear layer", "按线性层类型的平均编码位宽"},
    {"compression.mean_by_depth", "Mean code bits by depth (layers)", "按深度（层）的平均编码位宽"},
    {"compression.type_details", "Means by kind of linear layer", "按线性层类型的平均值"},
    {"compression.depth_details", "Means by depth (layers)", "按深度（层）的平均值"},
    {"compression.bits", "{0} bit", "{0} 比特"},
    {"compression.mean", "mean {0:.2f}", "平均 {0:.2f}"},

    {"part.codes", "codes", "编码"},
    {"part.scales", "scales", "缩放因子"},
    {"part.zeros", "zero points", "零点"},
    {"part.mask", "masks", "掩码"},
    {"part.order", "column orders", "列顺序"},
    {"part.groups", "group tables", "分组表"},
    {"part.padding", "padding", "填充"},
    {"part.embeddings", "embeddings", "词嵌入"},
    {"part.head", "output head", "输出头"},
    {"part.norms", "norms", "归一化"},
    {"part.biases", "biases", "偏置"},
    {"part.plain", "matrices kept as they are", "未压缩的矩阵"},
    {"part.headers", "file headers", "文件头"},
    {"part.other", "other files", "其他文件"},

    {"cost.time", "Wall time by phase, seconds", "各阶段用时（秒）"},
    {"cost.baseline", "baseline: {0}", "基线：{0}"},
    {"cost.compress", "compress: {0}", "压缩：{0}"},
    {"cost.compressed", "compressed: {0}", "压缩后：{0}"},
    {"cost.total", "total", "合计"},
    {"cost.summary", "Totals", "汇总"},
    {"cost.pass", "the model's own pass, seconds", "模型自身前向用时（秒）"},
    {"cost.weights", "its weights read or decoded, seconds", "读取或解码权重用时（秒）"},
    {"cost.evaluation", "evaluation in all, seconds", "评估总用时（秒）"},
    {"cost.compression", "compression, seconds", "压缩用时（秒）"},
    {"cost.speed", "tokens per second of that pass ({0})", "前向每秒 token 数（{0}）"},
    {"cost.memory", "peak memory of evaluation", "评估峰值内存"},
    {"cost.compression_memory", "peak memory of compression", "压缩峰值内存"},
    {"cost.generation.prompt", "generating: tokens per second of a prompt of {0}",
     "生成：读取提示的每秒 token 数（{0} token）"},
    {"cost.generation.decode", "generating: tokens per second, one by one", "生成：逐个生成的每秒 token 数"},
    {"cost.generation.weights", "generating: weights in memory", "生成：内存中的权重"},
    {"cost.generation.memory", "generating: peak memory of the process", "生成：进程峰值内存"},
    {"cost.reference",
     "The compressed model was measured against a reference: its evaluation in all, and its peak memory, "
     "hold "
     "the reference's pass and the comparison of both as well. The pass and tokens per second are the "
     "model's own on both sides.",
     "压缩模型还与参考模型做了对比：其评估总用时和峰值内存包含参考模型的前向与两者的比较。前向用时和每秒 "
     "token 数在两侧都只计模型自身。"},
    {"phase.texts", "texts", "文本"},
    {"phase.fingerprint", "fingerprint", "指纹"},
    {"phase.weights", "weights", "权重"},
    {"phase.pass", "pass", "前向"},
    {"phase.reference", "reference", "参考模型"},
    {"phase.divergence", "divergence", "散度"},
    {"cost.none", "Neither file records times or memory.", "两个文件都没有记录时间或内存。"},

    {"verdict.5", "hardly any loss", "几乎无损"},
    {"verdict.4", "a small loss", "轻微损失"},
    {"verdict.3", "a noticeable loss", "明显损失"},
    {"verdict.2", "a heavy loss", "严重损失"},
    {"verdict.sets", "{0} of {1} sets were measured on both sides.",
     "{1} 个数据集中有 {0} 个在两侧都完成测量。"},
    {"verdict.overall", "Overall rating, that of the worst set ({1}): {0}",
     "总评级（取最差的数据集 {1}）：{0}"},
    {"verdict.spread", "Retention runs from {0} ({1}) to {2} ({3}).", "保留率从 {0}（{1}）到 {2}（{3}）。"},

    {"sweep.title", "Sweep: {0}", "扫描：{0}"},
    {"sweep.summary", "{0} points; {1} of them are on the front: no other is both smaller and better",
     "{0} 个点，其中 {1} 个在帕累托前沿上：没有其他点既更小又更好"},
    {"sweep.summary.range", "; from {0} (KL {1:.4f}) to {2} (KL {3:.4f})", "；从 {0}（KL {1:.4f}）到 {2}（KL {3:.4f}）"},
    {"section.sweep.picture", "Quality against size", "质量与体积"},
    {"section.sweep.points", "Points", "各点"},
    {"section.sweep.rates", "Where the points on the front spend their bits", "前沿各点的比特分布"},
    {"section.sweep.cost", "Cost", "开销"},
    {"sweep.reading",
     "How to read this: each mark is a compressed file that was measured. Further left is smaller, {0} is better. A line joins "
     "the points of one kind of settings; the dashed line is the front, on which no file is both smaller and better than "
     "another. With several texts the figure is that of the text that fares worst. Move over a mark, or press Tab, to "
     "see what it is.",
     "读图方法：每个标记是一个经过测量的压缩文件。越靠左体积越小，{0}质量越好。实线连接同一类设置的点；虚线是帕累托前沿，"
     "前沿上没有任何文件既更小又更好。有多个文本时取最差文本的数值。将指针移到标记上，或按 Tab 键，可查看其内容。"},
    {"sweep.lower", "lower", "越低"},
    {"sweep.caption.kl", "KL divergence against {0}", "KL 散度与{0}"},
    {"sweep.caption.excess", "Excess loss against {0}", "超额损失与{0}"},
    {"sweep.caption.retention", "Retention against {0}", "保留率与{0}"},
    {"sweep.x.bytes", "bytes of the weight files", "权重文件字节数"},
    {"sweep.x.bits", "bits per weight", "每权重比特数"},
    {"sweep.axis.bytes", "bytes of the weight files", "权重文件字节数"},
    {"sweep.axis.bits", "stored bits per compressed weight", "每个压缩权重的存储比特"},
    {"sweep.axis.kl", "KL divergence, nats a token", "KL 散度（nat/token）"},
    {"sweep.axis.excess", "excess, nats a token", "超额损失（nat/token）"},
    {"sweep.axis.retention", "retention, percent", "保留率（%）"},
    {"sweep.front", "front", "帕累托前沿"},
    {"sweep.series.only", "points", "各点"},
    {"sweep.others", "other programs", "其他程序"},
    {"sweep.column.point", "point", "点"},
    {"sweep.column.front", "front", "前沿"},
    {"sweep.column.size", "weight files", "权重文件"},
    {"sweep.column.kl", "KL, nats", "KL 散度 (nat)"},
    {"sweep.column.seeds", "seeds", "种子数"},
    {"sweep.column.compress", "compressing, s", "压缩（秒）"},
    {"sweep.column.evaluate", "measuring, s", "测量（秒）"},
    {"sweep.column.memory", "memory", "内存"},
    {"sweep.column.device", "of the GPU", "GPU 内存"},
    {"sweep.table", "All points; those on the front are marked", "所有点，前沿上的点带标记"},
    {"sweep.table.sets", "Each text", "各文本"},
    {"sweep.rates.type", "Stored bits per weight by kind of linear layer", "按线性层类型的每权重存储比特"},
    {"sweep.rates.depth", "Stored bits per weight by depth (layers)", "按深度（层）的每权重存储比特"},
    {"sweep.rates.whole", "all", "全部"},
    {"sweep.cost.caption", "Seconds and peak memory of each point", "各点用时与峰值内存"},
    {"sweep.cost.shared", "Statistics and the baseline, which the points share, took {0} s in all; they are not in the figures of the points.",
     "各点共享的统计量与基线共用 {0} 秒，不计入各点。"},
    {"sweep.law", "{0}: the loss falls by a factor of {1:.2f} with each bit per weight ({2} points).",
     "{0}：每权重每增加 1 比特，损失降为 1/{1:.2f}（{2} 个点）。"},
    {"sweep.law.all", "All points", "所有点"},
    {"sweep.deviation", "Figures behind ± are the standard deviation over seeds.", "± 之后为各随机种子间的标准差。"},

    {"advice.none", "Nothing stands out in these figures.", "这些数据中没有突出的问题。"},
    {"advice.measure",
     "{0} was not measured on both sides. Evaluation here keeps one layer in memory, whatever the size of "
     "the model:",
     "{0} 没有在两侧都测量。这里的评估只在内存中保留一层，与模型大小无关："},
    {"advice.room",
     "Every set keeps 95 % or more (the worst {0}), so there is room (down to about {1:g}). This finds the smallest file that "
     "still keeps 95 %:",
     "所有数据集的保留率都在 95 % 以上（最差 {0}），还有缩小的余地（约至 {1:g}）。以下命令寻找仍保留 95 % 的最小文件："},
    {"advice.room.guess",
     "Every set keeps 95 % or more (the worst {0}), so a smaller budget is worth a try ({1:g}):",
     "所有数据集的保留率都在 95 % 以上（最差 {0}），可以尝试更小的预算（{1:g}）："},
    {"advice.sweep", "To see the whole of it, put this into the experiment as \"sweep\" and give it to mica sweep: {0}",
     "若要查看完整的取舍，可将以下内容作为 \"sweep\" 写入实验文件并运行 mica sweep：{0}"},
    {"slope",
     "Half a bit less for each weight, {0}, would have {1}; half a bit more, {2}, would have {3} (the loss falls by {4:.2f} with "
     "each bit, {5}).",
     "每权重减少半比特（{0}）：{1}；增加半比特（{2}）：{3}（每比特损失降为 1/{4:.2f}，{5}）。"},
    {"slope.kl", "a KL of about {0:.4f}", "KL 约为 {0:.4f}"},
    {"slope.excess", "an excess of about {0:.4f} nats", "超额损失约为 {0:.4f} nat"},
    {"slope.measured", "as measured here", "由此处测得"},
    {"slope.usual", "as is usual", "通常如此"},
    {"aim.kl", "Aimed at a KL of at most {0:g}: measured {1:.5f} on {2}; compressions: {3}.",
     "目标为 KL 不超过 {0:g}：在 {2} 上测得 {1:.5f}；压缩次数：{3}。"},
    {"aim.retention", "Aimed at a retention of at least {0:g} %: measured {1:.2f} % on {2}; compressions: {3}.",
     "目标为保留率不低于 {0:g} %：在 {2} 上测得 {1:.2f} %；压缩次数：{3}。"},
    {"aim.law.kl", " The law had said {0:.5f}; the loss is {1:+.1f} % off.", "规律预测为 {0:.5f}，损失偏差 {1:+.1f} %。"},
    {"aim.law.retention", " The law had said {0:.2f} %; the loss is {1:+.1f} % off.",
     "规律预测为 {0:.2f} %，损失偏差 {1:+.1f} %。"},
    {"advice.sparsity",
     "The forced zeros limit the result: pruning {0:.0f} % of the weights costs more than the bit widths do. "
     "Try {1:.0f} %:",
     "强制置零是主要限制：剪去 {0:.0f} % 的权重比位宽带来的损失更大。尝试 {1:.0f} %："},
    {"advice.pattern",
     "The fixed pattern limits the result: the same share of zeros ({0:.0f} %), placed freely, costs less:",
     "固定的稀疏模式是主要限制：同样比例（{0:.0f} %）的零值自由放置时损失更小："},
    {"advice.budget",
     "The budget limits the result ({0:.2f} mean code bits; about {1:g} should do). This finds the smallest file that keeps 95 % "
     "on every text:",
     "预算是主要限制（平均编码位宽 {0:.2f} 比特，约 {1:g} 应足够）。以下命令寻找在每个文本上都保留 95 % 的最小文件："},
    {"advice.budget.guess",
     "The budget limits the result ({0:.2f} mean code bits). The loss falls by about 4 per bit; the next "
     "step to try is {1:g}:",
     "预算是主要限制（平均编码位宽 {0:.2f} 比特）。每增加 1 比特，损失约降为四分之一；下一步可尝试 {1:g}："},
    {"advice.calibration",
     "{0} loses much more than the other sets ({1:.3f} nats per token) and no text of its kind was "
     "calibrated on. Give it half of the "
     "calibration (FILE is a training text of that kind, not the one measured):",
     "{0} 的损失远大于其他数据集（每 token {1:.3f} nat），而校准中没有同类文本。把一半校准量分给它（FILE "
     "为同类训练文本，不能是被测文本）："},
    {"advice.samples",
     "There were only {0:.1f} calibration tokens per input channel of the widest layer; 16 make the moments "
     "reliable ({1:.0f} samples):",
     "最宽的层每个输入通道只有 {0:.1f} 个校准 token；达到 16 个时统计量才可靠（{1:.0f} 个样本）："},
};

const ReportString* Find(std::string_view key) {
  for (const ReportString& string : kStrings) {
    if (string.key == key) return &string;
  }
  return nullptr;
}

}  // namespace

Language ParseLanguage(const std::string& name) {
  if (name == "en") return Language::kEnglish;
  if (name == "zh") return Language::kChinese;
  Fail("language '{}' is not known; use en or zh", name);
}

const char* LanguageTag(Language language) { return language == Language::kChinese ? "zh-CN" : "en"; }

std::span<const ReportString> ReportStrings() { return kStrings; }

std::string_view Translate(Language language, std::string_view key) {
  const ReportString* string = Find(key);
  MICA_CHECK(string != nullptr);
  return language == Language::kChinese ? string->chinese : string->english;
}

std::string TranslateOr(Language language, std::string_view prefix, const std::string& name) {
  const std::string key = std::string(prefix) + name;
  return Find(key) != nullptr ? std::string(Translate(language, key)) : name;
}

}  // namespace mica
